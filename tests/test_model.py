"""model.py: parity with reference outputs on weights made by formula, the maths by hand, checkpoints, bad input."""

import dataclasses
import zlib

import numpy as np
import pytest
import torch

import model
import sim

# The reference's names for our modules: numbers come from its outputs on weights filled from those names.
RENAME = [("vision.patch", "vision_encoder.embeddings.patch_embedding"), ("vision.position", "vision_encoder.embeddings.position_embedding"),
          ("vision.norm", "vision_encoder.post_layernorm"), ("vision.blocks", "vision_encoder.encoder.layers"),
          ("mixer", "vl_self_attention_model.transformer_blocks"), ("dit", "model.transformer_blocks"),
          ("time", "model.timestep_encoder.timestep_embedder.linear_"), ("ada_out", "model.proj_out_1"), ("out.", "model.proj_out_2."),
          ("encode_action", "action_encoder.W1"), ("encode_time", "action_encoder.W2"), ("encode_out", "action_encoder.W3"),
          ("decode1", "action_decoder.layer1"), ("decode2", "action_decoder.layer2"), ("position", "position_embedding")]
VISION = [(".norm", ".layer_norm"), (".attn.out", ".self_attn.out_proj"), (".attn.q", ".self_attn.q_proj"), (".attn.k", ".self_attn.k_proj"),
          (".attn.v", ".self_attn.v_proj"), (".fc", ".mlp.fc")]
DIFFUSION = [(".norm2", ".norm3"), (".attn.out", ".attn1.to_out.0"), (".attn.q", ".attn1.to_q"), (".attn.k", ".attn1.to_k"), (".attn.v", ".attn1.to_v"),
             (".fc1", ".ff.net.0.proj"), (".fc2", ".ff.net.2"), (".ada", ".norm1.linear")]


def reference_name(name):
    old, new = next(p for p in RENAME if name.startswith(p[0]))
    name = new + name[len(old):]
    for a, b in VISION if "encoder.layers" in name else DIFFUSION if "transformer_blocks" in name else []:
        name = name.replace(a, b)
    if name.startswith(("action_encoder", "action_decoder")):
        name = name.replace(".weight", ".W").replace(".bias", ".b")
    return name


def formula(name, shape):
    r = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return (1 + 0.1 * r if name.endswith("weight") and "norm" in name else 0.08 * r).astype(np.float32)


RELEASED = ("BACK", "DPAD_DOWN", "DPAD_LEFT", "DPAD_RIGHT", "DPAD_UP", "EAST", "GUIDE", "LEFT_SHOULDER", "LEFT_THUMB", "LEFT_TRIGGER",
            "NORTH", "RIGHT_BOTTOM", "RIGHT_LEFT", "RIGHT_RIGHT", "RIGHT_SHOULDER", "RIGHT_THUMB", "RIGHT_TRIGGER", "RIGHT_UP", "SOUTH",
            "START", "WEST", "LEFT_X", "LEFT_Y", "RIGHT_X", "RIGHT_Y")


def golden_net(dtype):
    c = model.Config(width=64, heads=4, vision_layers=12, vision_mlp=2, mixer_layers=2, dit_layers=4, horizon=18)
    net, state = model.NitroGen(c, RELEASED), {}
    for name, p in net.state_dict().items():
        ref, shape = reference_name(name), list(p.shape)
        if ref.endswith(".W"):                                  # the reference stores (category, in, out)
            state[name] = torch.from_numpy(formula(ref, [1, *shape[::-1]])[0].T.copy())
        else:
            state[name] = torch.from_numpy(formula(ref, [1, *shape] if ref.endswith(".b") else shape).reshape(shape))
    net.load_state_dict(state)
    return net.to(dtype).eval()


def test_parity_of_the_sampler():
    """16 Euler steps of the reference on the same weights, image and noise."""
    image = np.random.default_rng(1).integers(0, 256, (1, 256, 256, 3), dtype=np.uint8)
    noise = np.random.default_rng(2).standard_normal((1, 18, 25)).astype(np.float32)
    first = [0.2819551, -0.4005247, -0.3525652, -2.5912099, 1.8376871, 1.0536032, -0.3819686, 0.7007113, 0.311895, -0.3916585, 0.9594562,
             -0.1815665, -0.4995621, -0.5806214, 0.2451156, -0.1373585, 0.6449957, -0.6373819, 0.227777, -0.874351, 0.9720624, 0.2435233,
             0.4633931, 0.3793356, -1.0022166]
    second = [0.8644716, 2.1601429, -1.5798801, -1.8403795, -1.4735656, 0.7448593, 0.0915059, 0.9972706, 0.7087789, 0.3505012]
    for dtype, bound in ((torch.float64, 2e-7), (torch.float32, 2e-5)):     # the numbers have 7 decimals
        out = golden_net(dtype).sample(image, noise)[0].numpy()
        assert out.shape == (18, 25)
        assert np.abs(out[0] - first).max() < bound and np.abs(out[1, :10] - second).max() < bound


def test_parity_of_the_loss_and_its_gradients():
    r = np.random.default_rng(3)
    actions = torch.from_numpy(r.uniform(0, 1, (2, 18, 25)).astype(np.float32)).double()
    noise = torch.from_numpy(r.standard_normal((2, 18, 25)).astype(np.float32)).double()
    images = np.stack([np.random.default_rng(10 + i).integers(0, 256, (256, 256, 3), dtype=np.uint8) for i in range(2)])
    net = golden_net(torch.float64)
    loss = net.loss(net.pixels(torch.from_numpy(images)), actions, torch.ones(1).double(), torch.tensor([0.1234, 0.7777]).double(), noise)
    loss.backward()
    assert abs(loss.item() / 1.174904709236444 - 1) < 1e-6
    expected = {"action_encoder.W1.W": 0.032097295654716924, "action_decoder.layer2.W": 0.3949912722730223,
                "model.transformer_blocks.0.attn1.to_k.weight": 0.06376124908425623,
                "vl_self_attention_model.transformer_blocks.0.ff.net.0.proj.weight": 0.08090198919817333,
                "vision_encoder.encoder.layers.0.self_attn.q_proj.weight": 0.0019224631452627167, "position_embedding.weight": 0.03642633755724907}
    got = {reference_name(n): p.grad.norm().item() for n, p in net.named_parameters() if p.grad is not None}
    for name, value in expected.items():
        assert abs(got[name] / value - 1) < 1e-6, name


def test_parameter_count_of_the_paper():
    """FACTS of the release: 493,631,513 with 18 x 25 actions, less the pooling head that is never run."""
    with torch.device("meta"):
        net = model.NitroGen(model.CONFIGS["paper"], RELEASED)
    parts = {k: sum(p.numel() for n, p in net.named_parameters() if n.startswith(k)) for k in ("vision", "mixer", "encode", "decode")}
    assert parts["mixer"] == 50_384_896 and parts["encode"] == 3_174_400 and parts["decode"] == 1_075_225
    head = 1024 + 3 * 1024 * 1024 + 3 * 1024 + 1024 * 1024 + 1024 + 2 * 1024 + 2 * 4 * 1024 * 1024 + 4096 + 1024
    assert parts["vision"] + head == 315_956_224
    assert sum(p.numel() for p in net.parameters()) + head == 493_631_513


def tiny(**changes):
    torch.manual_seed(0)
    return model.NitroGen(dataclasses.replace(model.CONFIGS["tiny"], **changes))


def test_save_and_load(tmp_path):
    net, path = tiny().eval(), tmp_path / "m.safetensors"
    model.save(path, net.state_dict(), net)
    images = np.random.default_rng(0).integers(0, 256, (2, 200, 300, 3), dtype=np.uint8)
    noise = torch.randn(2, 16, 20)
    again = model.load(path, "cpu")
    assert torch.equal(net.sample(images, noise), again.sample(images, noise))
    act = again.act(images, noise)
    assert act["buttons"].shape == (2, 16, 16) and act["sticks"].dtype == np.float32 and np.abs(act["sticks"]).max() <= 1


def test_learns_one_batch():
    """The loss of a tiny network on one batch falls to a fraction: forward, loss and gradients fit together."""
    net = tiny()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    images, actions = torch.randint(0, 256, (4, 128, 128, 3), dtype=torch.uint8), (torch.rand(4, 16, 20) > 0.5).float()
    losses = []
    for _ in range(120):
        loss = net.loss(net.pixels(images), actions, torch.ones(1), draws=4)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])


def test_masked_entries_do_not_count():
    net = tiny(predict="velocity")
    net.decode2.weight.data.normal_(std=0.1)
    pixels, actions, mask = torch.rand(2, 3, 64, 64), torch.rand(2, 16, 20), torch.ones(2, 1, 20)
    mask[..., 5] = 0
    t, noise = torch.tensor([0.3, 0.6]), torch.randn(2, 16, 20)
    changed = actions.clone()
    changed[..., 5] += 9
    v = net.velocity(torch.lerp(noise, actions, t[:, None, None]), net.timing((t * 1000).long()), net.context(pixels))
    by_hand = ((v - (actions - noise)) ** 2 * mask).sum() / (mask.expand_as(actions).sum() + 1e-6)
    assert torch.allclose(net.loss(pixels, actions, mask, t, noise), by_hand, atol=1e-6)


def test_predicting_the_action_is_the_same_flow():
    """With predict="action" the last layer's output x gives v = (x - a_t) / (1 - t): one whole step from t = 0 lands on x."""
    net = tiny(predict="action").eval()
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    noise = torch.randn(1, 16, 20)
    x = tiny(predict="velocity").eval()
    x.load_state_dict(net.state_dict())
    v = x.velocity(noise, x.timing(torch.tensor([0])), x.context(x.pixels(torch.from_numpy(images))))
    assert torch.allclose(net.sample(images, noise, steps=1), v, atol=1e-5)
    pixels, actions, t = torch.rand(2, 3, 64, 64), torch.rand(2, 16, 20), torch.tensor([0.25, 0.5])
    drawn = torch.randn(2, 16, 20)
    output = x.velocity(torch.lerp(drawn, actions, t[:, None, None]), x.timing((t * 1000).long()), x.context(pixels))
    assert torch.allclose(net.loss(pixels, actions, torch.ones(1), t, drawn), ((output - actions) ** 2).mean(), rtol=1e-4)


@pytest.mark.parametrize("images", [np.zeros((1, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)])
def test_bad_images(images):
    with pytest.raises(ValueError, match="uint8 \\[B, h, w, 3\\]"):
        tiny().sample(images)


def test_bad_noise_and_bad_files(tmp_path):
    net, path = tiny(), tmp_path / "m.safetensors"
    with pytest.raises(ValueError, match="finite"):
        net.sample(np.zeros((1, 64, 64, 3), np.uint8), noise=torch.full((1, 16, 20), float("nan")))
    model.save(path, {k: v for k, v in net.state_dict().items() if k != "out.bias"}, net)
    with pytest.raises(SystemExit, match="'out.bias': expected \\[128\\], found nothing"):
        model.load(path, "cpu")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(SystemExit, match="not a readable safetensors file"):
        model.load(path, "cpu")
    sim.write(path, {}, "nitrogen.state/1")
    with pytest.raises(SystemExit, match="expected a nitrogen.policy/1 file, found 'nitrogen.state/1'"):
        model.load(path, "cpu")
