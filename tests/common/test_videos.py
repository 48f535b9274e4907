"""Which videos a command is given: files, folders, patterns and lists."""

from dataclasses import dataclass
from pathlib import Path

from common.command_line import Many, command_line
from common.inputs import expand

from commands import fault


@dataclass(frozen=True)
class Stage(Many):
    videos: tuple[str, ...] = ()  # some videos


def test_files_folders_patterns_and_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "a.mp4",
        "clips/z.MKV",
        "clips/b.mp4",
        "clips/b.preview.mp4",
        "clips/.b.1.part.mp4",
        "clips/notes.txt",
        "clips/deep/c.mp4",
        "game [x1].mp4",
        "@f.mp4",
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    b, z, c = (str(Path(p)) for p in ("clips/b.mp4", "clips/z.MKV", "clips/deep/c.mp4"))
    assert expand(["clips", "a.mp4"]) == (b, z, "a.mp4")
    assert expand(["clips/*.M*", "clips/**/c.*"]) == (z, c)
    # a name may look like a pattern; for_each names the lost
    assert expand(["game [x1].mp4", "@f.mp4", "gone.mp4"]) == (
        "game [x1].mp4",
        "@f.mp4",
        "gone.mp4",
    )
    Path("list.txt").write_text(
        "\ufeff# mine\n\n  clips/deep/c.mp4 \ngame [x1].mp4\n#a.mp4\n", encoding="utf-8"
    )
    assert expand(["@list.txt"]) == ("clips/deep/c.mp4", "game [x1].mp4")
    Path("empty.txt").write_text("# nothing\n"), Path("empty").mkdir()
    for none in ("empty", "clips/*.avi", "@empty.txt"):
        assert fault(expand, [none]).startswith(f"{none}: no videos there")
    assert fault(expand, ["@gone.txt"]).startswith("@gone.txt: not a readable list of videos")
    Path("a.png").write_bytes(b"\xff\xfe\xfd")
    assert fault(expand, ["@a.png"]).startswith("@a.png: not a readable list of videos")
    assert command_line("", {"": (Stage, lambda cfg: cfg)}, ["clips", "@list.txt"]).videos == (
        b,
        z,
        "clips/deep/c.mp4",
        "game [x1].mp4",
    )
