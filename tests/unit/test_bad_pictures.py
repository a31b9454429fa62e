"""Pictures that are none, and odd ones: one clear line or a sound result, and nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import backend.guidance
from backend import cli
from backend.errors import PictureError
from backend.events import Event, Message
from backend.job import run_job
from backend.reference import ReferenceImage
from backend.reference_files import bind, prepare
from tests.unit.picture_jobs import SMALL, SMALL_OPTIONS, disc, never, nothing
from tests.unit.reference_world import write_picture

pytestmark = pytest.mark.usefixtures("threads_kept")


def _save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def _truncated(path: Path) -> Path:
    write_picture(path, disc(256))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _text(path: Path) -> Path:
    path.write_text("This is not a picture.\n")
    return path


def _empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


BAD = {
    "empty": (_empty, "is empty"),
    "one colour": (lambda path: _save(path, Image.new("RGB", (64, 64), (9, 80, 200))), "is all one colour"),
    "transparent": (lambda path: _save(path, Image.new("RGBA", (64, 64), (200, 0, 0, 0))), "is fully transparent"),
    "truncated": (_truncated, "is damaged or cut off"),
    "text": (_text, "is not a picture that can be read"),
    "1x1": (lambda path: _save(path, Image.new("RGB", (1, 1))), "has 1 × 1 pixels"),
    "20000x10": (lambda path: _save(path, Image.new("RGB", (20_000, 10))), "has 20000 × 10 pixels"),
    "missing": (lambda path: path, "There is no file"),
    "folder": (lambda path: path.mkdir() or path, "is a folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_one_line_and_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, said = BAD[name]
    (tmp_path / "in").mkdir()
    path = make(tmp_path / "in" / "picture.png")
    out = tmp_path / "out"
    assert cli.main(["generate", "--image", str(path), *SMALL_OPTIONS, "--out", str(out)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert said in told.err
    assert "Traceback" not in told.err
    assert {each.name for each in tmp_path.iterdir()} == {"in"}


def _on_white(size: int = 64) -> Image.Image:
    rgba = disc(size)
    flat = rgba[..., :3] * rgba[..., 3:] + 1.0 - rgba[..., 3:]
    return Image.fromarray(np.round(flat * 255).astype(np.uint8))


def _animated(path: Path) -> Path:
    frames = [_on_white(), Image.new("RGB", (64, 64), (0, 0, 0))]
    return _save(path, frames[0], save_all=True, append_images=frames[1:], duration=100)


SOUND = {
    "cmyk.jpg": lambda path: _save(path, _on_white().convert("CMYK"), quality=95),
    "animated.gif": _animated,
    "animated.webp": _animated,
    "palette.png": lambda path: _save(path, _on_white().quantize(32)),
}


@pytest.mark.parametrize("name", SOUND)
def test_an_odd_picture_gives_a_sound_result(name: str, tmp_path: Path) -> None:
    path, out = SOUND[name](tmp_path / name), tmp_path / "out"
    assert cli.main(["generate", "--image", str(path), *SMALL_OPTIONS, "--out", str(out)]) == 0
    views = prepare(bind(SMALL.replace(references=(ReferenceImage(str(path)),)))[0], nothing)
    rgba = views[0].sizes[-1].rgba
    assert 0.3 < rgba[..., 3].mean() < 0.9
    left, right = rgba[16, 6, :3], rgba[16, 26, :3]
    assert left[2] > left[0] + 0.2
    assert right[0] > right[2] + 0.2
    assert (out / "references" / f"1{path.suffix}").read_bytes() == path.read_bytes()


def test_bad_maps_are_one_line(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    for option, file in (("--depth", picture), ("--normal", _text(tmp_path / "n.png")), ("--depth", tmp_path / "no")):
        assert cli.main(["generate", "--image", str(picture), option, str(file), *SMALL_OPTIONS, "--out", out]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not Path(out).exists()


def test_an_object_at_the_border_is_warned_of(tmp_path: Path) -> None:
    rgba = np.roll(disc(), 20, axis=1)
    rgba[:, :20] = 0
    path = write_picture(tmp_path / "edge.png", rgba)
    for framing, count in (("auto", 1), ("as-is", 0)):
        events: list[Event] = []
        picture = ReferenceImage(str(path), framing=framing)  # type: ignore[arg-type]
        prepare(bind(SMALL.replace(references=(picture,)))[0], events.append)
        assert len([e for e in events if isinstance(e, Message) and e.level == "warning"]) == count


def test_a_bad_picture_fails_before_a_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(backend.guidance, "load_view_guidance", refuse)
    monkeypatch.setattr(backend.guidance, "load_guidance", refuse)
    path = _save(tmp_path / "flat.png", Image.new("RGB", (64, 64)))
    request = SMALL.replace(references=(ReferenceImage(str(path)),), view_model="toybox-views", prompt="a duck")
    with pytest.raises(PictureError, match="all one colour"):
        run_job(request, tmp_path / "job", nothing, never)
