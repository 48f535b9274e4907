"""templates/: XFeat, its parity, its weights and its training."""

import itertools
import re
import zlib
from dataclasses import replace

from common import ROOT, artefact

import cv2
import numpy as np
import pytest
import torch

from commands import run
from templates import library, pads, xfeat, xfeat_training

# The official network on weights made from their names (see fill), on 192 x 256 px of noise: per
# output its shape, mean, standard deviation, and the first 8 channels at the corner and at [H // 2,
# W // 2].
GOLDEN_XFEAT = [
    (
        [1, 64, 24, 32],
        0.04404463795669757,
        0.9374807936582176,
        [0.0427364, -0.1483355, -0.4172991, -0.272434, -0.3126107, -0.2043465, 0.2963886, 0.311541],
        [-0.57658, 0.0516631, -2.0726708, -0.7408883, -0.095055, 0.6281497, -0.420186, 1.2623931],
    ),
    (
        [1, 65, 24, 32],
        -0.002219747288187707,
        0.09428887741714732,
        [
            0.1252313,
            0.0073641,
            -0.0203135,
            0.0430999,
            -0.0436554,
            0.1030468,
            -0.0097969,
            -0.0896797,
        ],
        [
            0.0538053,
            0.0087501,
            0.0418415,
            -0.0250664,
            -0.1530831,
            0.1480426,
            -0.0347307,
            -0.0814053,
        ],
    ),
    ([1, 1, 24, 32], 0.4882244496092456, 0.012570367564464807, [0.5176808], [0.4721026]),
]


def fill(name, shape):
    r = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return torch.from_numpy(
        np.asarray(0.5 + np.abs(r) if name.endswith("running_var") else 0.08 * r, np.float32)
    )


def filled():
    return {name: fill(name, shape) for name, shape in xfeat.xfeat_shapes().items()}


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 2e-7), (torch.float32, 2e-5)])
@pytest.mark.parametrize("prepare", [lambda w: w, xfeat.fold])
def test_xfeat_parity(dtype, tolerance, prepare):
    image = np.random.default_rng(1).integers(0, 256, (192, 256, 3), dtype=np.uint8)
    x = torch.from_numpy(image / 255).permute(2, 0, 1)[None].to(dtype)
    w = prepare({k: v.to(dtype) for k, v in filled().items()})
    for y, (shape, mean, std, corner, centre) in zip(
        xfeat.xfeat_net(w, x), GOLDEN_XFEAT, strict=False
    ):
        assert list(y.shape) == shape
        h, v = y.shape[-2:]
        found = torch.cat([y.mean()[None], y.std()[None], y[0, :8, 0, 0], y[0, :8, h // 2, v // 2]])
        assert (
            found - torch.tensor([mean, std, *corner, *centre], dtype=dtype)
        ).abs().max() < tolerance


def test_xfeat_parameters():
    for matcher, count in ((False, 657_910), (True, 1_544_758)):
        assert (
            sum(
                int(np.prod(s))
                for k, s in xfeat.xfeat_shapes(matcher).items()
                if "running" not in k
            )
            == count
        )


def test_at_points_by_hand():
    """A ramp over 4 x 3 cells of a 32 x 24 picture, read as the official code reads it: x * 4 / 31
    - 0.5.
    """
    ramp = torch.arange(4.0).expand(1, 1, 3, 4)
    points = torch.tensor([[[12.0, 10.0], [8.0, 12.0]]])
    found = xfeat.at_points(ramp, points, (32, 24))[0, :, 0]
    assert torch.allclose(found, points[0, :, 0] * 4 / 31 - 0.5, atol=1e-6)


def test_detect_step_by_step():
    """Every keypoint is the highest of its 5 x 5 pixels and above the threshold, and none is
    missing.
    """
    image = cv2.GaussianBlur(
        np.random.default_rng(4).integers(0, 256, (96, 128, 3), dtype=np.uint8), (0, 0), 1.5
    )
    w = xfeat.fold(filled())
    points, descriptors = xfeat.detect(image, w, threshold=0.0155)
    logits = xfeat.xfeat_net(w, torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[1][
        0
    ].double()
    heat = np.zeros((96, 128))
    for i, j in np.ndindex(12, 16):
        heat[8 * i : 8 * i + 8, 8 * j : 8 * j + 8] = logits[:, i, j].softmax(0)[:64].reshape(8, 8)
    # the last row and column read beyond the picture
    wanted = {
        (x + 0.5, y + 0.5)
        for y, x in np.ndindex(95, 127)
        if heat[y, x] > 0.0155
        and heat[y, x] == heat[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].max()
    }
    assert len(wanted) > 50 and set(map(tuple, points.tolist())) == wanted
    assert descriptors.shape == (len(points), 64) and np.allclose(
        np.linalg.norm(descriptors, axis=1), 1, atol=1e-5
    )
    few = xfeat.detect(image, w, top_k=20, threshold=0.0155)
    assert np.array_equal(few[0], points[:20]) and np.array_equal(few[1], descriptors[:20])


def test_detect_resizes_and_takes_batches():
    images = np.random.default_rng(5).integers(0, 256, (2, 100, 150, 3), dtype=np.uint8)
    w = xfeat.fold(filled())
    both = xfeat.detect(images, w, threshold=0.0155)
    for image, (points, descriptors) in zip(images, both, strict=False):
        alone = xfeat.detect(image, w, threshold=0.0155)
        assert (
            len(points)
            and np.allclose(points, alone[0])
            and np.allclose(descriptors, alone[1], atol=1e-5)
        )
        assert (
            (points > 0).all()
            and (points < (150, 100)).all()
            and points[:, 0].max() > 135
            and points[:, 1].max() > 90
        )
    points, descriptors = xfeat.detect(np.full((20, 20, 3), 90, np.uint8), w, threshold=0.5)
    assert points.shape == (0, 2) and descriptors.shape == (0, 64)


def test_cells_by_hand():
    found = xfeat_training.cells(np.array([[9.5, 2.5], [15.9, 15.1], [-0.2, 3], [16.0, 3]]), 16)
    assert found.tolist() == [[64, 17], [64, 63]]


def test_official_weights_load(tmp_path):
    official = {name: fill(name, shape) for name, shape in xfeat.xfeat_shapes(matcher=True).items()}
    official |= {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(7)
        for name in list(official)
        if name.endswith("running_var")
    }
    assert len(official) == 122
    torch.save(official, tmp_path / "xfeat.pt")
    w = xfeat.load_xfeat(tmp_path / "xfeat.pt")
    assert set(w) == set(filled()) and all(torch.equal(w[k], v) for k, v in filled().items())


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda w: w.pop("block5.3.layer.0.weight"), "tensor 'block5.3.layer.0.weight' is missing"),
        (
            lambda w: w.update({"skip1.1.weight": torch.zeros(24, 1, 3, 3)}),
            "tensor 'skip1.1.weight' should be finite [24, 1, 1, 1], found [24, 1, 3, 3]",
        ),
        (
            lambda w: w.update({"keypoint_head.3.bias": torch.full((65,), torch.nan)}),
            "tensor 'keypoint_head.3.bias' should be finite",
        ),
        (lambda w: w.update({"head.weight": torch.zeros(3)}), "unknown tensor 'head.weight'"),
    ],
)
def test_other_weights_are_refused(tmp_path, change, words):
    w = filled()
    change(w)
    torch.save(w, tmp_path / "w.pt")
    artefact.write(
        tmp_path / "w.safetensors", {k: v.numpy() for k, v in w.items()}, "nitrogen.features/1"
    )
    for name in ("w.pt", "w.safetensors"):
        with pytest.raises(SystemExit, match=re.escape(words)) as e:
            xfeat.load_xfeat(tmp_path / name)
        assert name in str(e.value) and "\n" not in str(e.value)


def test_unreadable_weights(tmp_path):
    (tmp_path / "text.pt").write_text("not weights")
    torch.save([1, 2], tmp_path / "list.pt")
    artefact.write(tmp_path / "other.safetensors", {}, "nitrogen.parser/1")
    for name in ("text.pt", "list.pt", "gone.pt", "gone.safetensors", "other.safetensors"):
        with pytest.raises(SystemExit, match=name) as e:
            xfeat.load_xfeat(tmp_path / name)
        assert "\n" not in str(e.value)


def test_pairs_show_the_same_points():
    """The second picture, undamaged, taken back through the warp is like the first, where the
    template is: 1.5 px aside less so.
    """
    data, exact = (
        xfeat_training.Pairs(3, list(itertools.islice(library.templates().values(), 4))),
        [],
    )
    for i in range(8):
        for make in (data.overlay_pair, data.warped_pair):
            _, (first, second), warp, where = make(np.random.default_rng([3, i]), i)
            likeness = {}
            for aside in np.ndindex(3, 3):
                # 0.5 of it: the pixel's centre
                off = np.array([[1, 0, 1.5 * aside[0] - 1], [0, 1, 1.5 * aside[1] - 1], [0, 0, 1]])
                m = np.linalg.inv([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]) @ warp @ off
                back = cv2.warpPerspective(
                    second,
                    m,
                    where.shape,
                    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                    borderMode=cv2.BORDER_REFLECT,
                )
                likeness[aside] = np.corrcoef(first[where].ravel(), back[where].ravel())[0, 1]
            exact.append(max(likeness, key=likeness.get) == (1, 1))
    assert sum(exact) >= 15
    item, again = data[11], xfeat_training.Pairs(3, data.pool)[11]
    assert all(np.array_equal(item[k], again[k]) for k in item)
    assert (
        item["images"].shape == (2, 224, 224)
        and item["points"].shape == (2, 160, 2)
        and (item["corners"] < 64).any()
    )
    assert item["points"].min() > 0 and item["points"].max() < 224


def test_xfeat_training_resumes_exactly(tmp_path):
    def run(name, *parts):
        cfg = xfeat_training.Config(out=str(tmp_path / name), steps=20, batch=2)
        for steps in parts:
            run = xfeat_training.XFeatTraining(cfg, "cpu")
            for _ in range(steps):
                items = [data[run.steps * 2 + i] for i in range(2)]
                losses = run.step(
                    {k: torch.from_numpy(np.stack([item[k] for item in items])) for k in items[0]}
                )
            run.suspend()
        return losses, run

    data = xfeat_training.Pairs(0, list(itertools.islice(library.templates().values(), 3)))
    (whole, a), (halves, b) = run("a.safetensors", 4), run("b.safetensors", 2, 2)
    assert whole == halves and a.steps == b.steps == 4
    assert all(torch.equal(v, b.tensors()[k]) for k, v in a.tensors().items())
    with pytest.raises(SystemExit, match="another batch"):
        xfeat_training.XFeatTraining(
            xfeat_training.Config(out=str(tmp_path / "a.safetensors"), batch=3), "cpu"
        )


@pytest.mark.slow
def test_xfeat_train_command(tmp_path, capsys):
    done = run(
        "train",
        "--steps",
        "2",
        "--batch",
        "2",
        "--validation",
        "2",
        "--out",
        "x.safetensors",
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "657,910 parameters" in done.stdout, done.stderr
    tensors, info = artefact.read(tmp_path / "x.safetensors", "nitrogen.features/1")
    assert set(tensors) == set(xfeat.xfeat_shapes()) and info["steps"] == 2 and info["images"] == 8
    assert 0 <= info["found_held_out"] <= 1
    again = xfeat_training.Config(
        steps=2, batch=2, validation=2, out=str(tmp_path / "x.safetensors")
    )
    xfeat_training.main(again)
    assert "finished already" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    for folder, words in (("gone", "no such folder"), ("empty", "no video in it")):
        with pytest.raises(SystemExit, match=words):
            xfeat_training.main(replace(again, backgrounds=str(tmp_path / folder)))


def test_shipped_xfeat_weights():
    """They are small, and tell the points of templates that they never saw from all others of the
    picture.
    """
    path = ROOT / "weights/xfeat.safetensors"
    assert path.stat().st_size < 2e6
    unseen = [t for name, t in library.templates().items() if pads.held_out(name)]
    assert (
        xfeat_training.held_out_points(xfeat.load_xfeat(path), xfeat_training.Pairs(5, unseen), 20)
        > 0.8
    )
    assert (
        xfeat_training.held_out_points(
            xfeat_training.random_weights(0), xfeat_training.Pairs(5, unseen), 2
        )
        < 0.2
    )
