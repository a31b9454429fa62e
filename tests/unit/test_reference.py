"""Pictures in a request: what may be said of them, how a command line says it, and that their content decides."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import reference_files
from backend.errors import PictureError, RequestError
from backend.picture_options import add_picture_options, pictures_of
from backend.reference import FixedCamera, ReferenceImage, resolved
from backend.reference_files import bind, camera_of, keep, prepare, sizes
from backend.request import MeshSettings, ReferenceSettings, Request, ViewGuidanceSettings
from tests.unit.picture_jobs import disc
from tests.unit.reference_world import write_picture

IDENTITY = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 3.0), (0.0, 0.0, 0.0, 1.0))
CAMERA = FixedCamera(IDENTITY, (2.0, 1.5), (0.1, -0.2))


def with_pictures(*pictures: ReferenceImage, prompt: str = "") -> Request:
    return Request(prompt, references=pictures)


def test_a_picture_stands_for_a_prompt() -> None:
    request = with_pictures(ReferenceImage("a/duck.png")).validated()
    assert request.title == "duck"
    assert request.shows_pictures
    assert not request.asks_prompt
    assert with_pictures(ReferenceImage("a.png"), prompt="a duck").title == "a duck"
    assert not request.replace(view_model="none").shows_pictures


def test_a_prompt_without_weight_is_not_asked() -> None:
    request = with_pictures(ReferenceImage("a.png"), prompt="a duck")
    assert request.asks_prompt
    weightless = request.replace(view_guidance=ViewGuidanceSettings(prompt_weight=0.0))
    assert not weightless.asks_prompt
    assert weightless.replace(view_model="none").asks_prompt
    assert weightless.replace(references=()).asks_prompt


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file": " "}, "has no file"),
        ({"file": 3}, "references[0].file is 3. It must be text."),
        ({"azimuth": 181.0}, "references[0].azimuth is 181.0. It must be between -180 and 180"),
        ({"elevation": float("nan")}, "references[0].elevation is nan"),
        ({"distance": 1.0}, "references[0].distance is 1.0"),
        ({"weight": 0.0}, "references[0].weight is 0.0"),
        ({"cutout": "magic"}, "references[0].cutout is 'magic'"),
        ({"camera": "Camera"}, "references[0].camera is 'Camera'"),
        ({"camera": CAMERA, "framing": "object"}, "sees the object where it is"),
        ({"camera": dataclasses.replace(CAMERA, focal=(0.0, 1.0))}, "references[0].camera has"),
    ],
)
def test_what_cannot_be_said_of_a_picture(change: dict[str, Any], said: str) -> None:
    fields: dict[str, Any] = {"file": "a.png", **change}
    picture = ReferenceImage(**fields)
    with pytest.raises(RequestError) as caught:
        with_pictures(picture).validated()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_many_pictures_and_no_model_for_them() -> None:
    with pytest.raises(RequestError, match="64 are the most"):
        with_pictures(*[ReferenceImage("a.png")] * 65).validated()
    with pytest.raises(RequestError, match="No model is chosen for the pictures"):
        with_pictures(ReferenceImage("a.png")).replace(view_model=" ").validated()


def test_a_camera_or_none_survives_json() -> None:
    request = with_pictures(ReferenceImage("a.png", camera=CAMERA), ReferenceImage("b.png", 30.0, weight=2.0))
    assert Request.from_json(request.to_json()) == request
    with pytest.raises(RequestError, match=r"references\[0\].camera is not an object"):
        Request.from_dict({"prompt": "", "references": [{"file": "a", "camera": 3}]})
    with pytest.raises(RequestError, match=r"references\[0\].camera.focal is missing"):
        Request.from_dict({"prompt": "", "references": [{"file": "a", "camera": {"camera_to_world": IDENTITY_LIST}}]})


IDENTITY_LIST = [list(row) for row in IDENTITY]


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_picture_options(parser)
    return parser.parse_args(arguments)


def test_options_speak_of_the_picture_before_them() -> None:
    options = parse(
        *("--image", "a.png", "--azimuth", "-30", "--elevation", "1e1", "--fov", "49.1", "--distance", "2.5"),
        *("--image", "b.png", "--depth", "b.npy", "--normal", "n.png", "--weight", "3", "--framing", "as-is"),
        *("--image", "c.png", "--cutout", "plain"),
    )
    assert pictures_of(options) == (
        ReferenceImage("a.png", -30.0, 10.0, 2.5, 49.1),
        ReferenceImage("b.png", depth="b.npy", normals="n.png", weight=3.0, framing="as-is"),
        ReferenceImage("c.png", cutout="plain"),
    )
    assert pictures_of(parse()) == ()
    assert pictures_of(parse("--image", "a.png", "--fov", "20"), distance=4.0, field_of_view=30.0) == (
        ReferenceImage("a.png", distance=4.0, field_of_view=20.0),
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--azimuth", "3", "--image", "a.png"], "--azimuth belongs to a picture"),
        (["--image", "a.png", "--fov", "wide"], "--fov is 'wide': it must be a number"),
    ],
)
def test_options_that_make_no_sense(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(*arguments)
    assert said in capsys.readouterr().err


def test_content_decides_and_not_the_place(tmp_path: Path) -> None:
    for name, data in (("a.png", b"one"), ("b.png", b"one"), ("c.png", b"two"), ("d.npy", b"depth")):
        (tmp_path / name).write_bytes(data)

    def bound(file: str, **more: Any) -> Request:
        return bind(with_pictures(ReferenceImage(str(tmp_path / file), **more)))[0]

    one, same, other = bound("a.png"), bound("b.png"), bound("c.png")
    assert one.digest() == same.digest()
    assert len({one.digest(), other.digest(), bound("a.png", azimuth=1.0).digest()}) == 3
    deep = bound("a.png", depth=str(tmp_path / "d.npy"))
    assert deep.digest() != one.digest()
    (tmp_path / "d.npy").write_bytes(b"other")
    assert bound("a.png", depth=str(tmp_path / "d.npy")).digest() != deep.digest()
    assert one.references[0].name == "a.png"


def test_another_content_than_the_known_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    request, contents = bind(with_pictures(ReferenceImage(str(path))))
    assert contents == {str(path): b"one"}
    assert bind(request)[0] == request
    path.write_bytes(b"two")
    with pytest.raises(PictureError, match="not the picture that the job began with"):
        bind(request)


@pytest.mark.parametrize("kind", ["missing", "folder", "empty"])
def test_files_that_are_none(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    with pytest.raises(PictureError, match={"missing": "There is no file"}.get(kind, f"is a? ?{kind}")):
        bind(with_pictures(ReferenceImage(str(path))))


def test_copies_are_named_beside_the_request_that_means_them(tmp_path: Path) -> None:
    for name in ("My Duck.PNG", "z.npy", "odd.x y"):
        (tmp_path / name).write_bytes(name.encode())
    pictures = [
        ReferenceImage(str(tmp_path / "My Duck.PNG"), depth=str(tmp_path / "z.npy")),
        ReferenceImage(str(tmp_path / "odd.x y")),
    ]
    request, contents = bind(with_pictures(*pictures))
    (tmp_path / "job").mkdir()
    kept = keep(request, contents, tmp_path / "job")
    assert [each.files for each in kept.references] == [
        {"file": "references/1.png", "depth": "references/1-depth.npy"},
        {"file": "references/2"},
    ]
    assert kept.title == "My Duck"
    assert kept.digest() == request.digest()
    again = kept.replace(references=resolved(kept.references, tmp_path / "job"))
    assert bind(again)[0].digest() == request.digest()
    assert (tmp_path / "job" / "references" / "1.png").read_bytes() == b"My Duck.PNG"


def test_sizes_double_up_to_the_resolution() -> None:
    assert sizes(ReferenceSettings(resolution=128, resolution_start=64)) == (64, 128)
    assert sizes(ReferenceSettings(resolution=100, resolution_start=16)) == (16, 32, 64, 100)
    assert sizes(ReferenceSettings(resolution=64, resolution_start=128)) == (64,)


def test_the_camera_is_the_pose_or_the_given_one() -> None:
    orbit = camera_of(ReferenceImage("a.png", 90.0, 30.0, 4.0, 60.0))
    assert (orbit.azimuth[0], orbit.elevation[0], orbit.distance[0]) == pytest.approx((90, 30, 4), abs=1e-4)
    assert orbit.focal[0, 0] == pytest.approx(3**0.5)
    given = camera_of(ReferenceImage("a.png", 90.0, camera=CAMERA))
    assert given.focal[0].tolist() == [2.0, 1.5]
    assert given.center[0] == pytest.approx([0.1, -0.2])


@pytest.mark.parametrize(("texture", "side"), [(1024, 300), (256, 256)])
def test_the_texture_takes_a_picture_as_fine_as_both_are(texture: int, side: int, tmp_path: Path) -> None:
    path = write_picture(tmp_path / "disc.png", disc(300))
    seen = ReferenceImage(str(path), framing="as-is")
    request = Request("", references=(seen,), mesh=MeshSettings(texture_size=texture))
    fine = prepare(request, lambda _: None)[0].fine
    assert fine is not None
    assert (fine.shape, fine.dtype) == ((side, side, 4), np.uint8)
    assert tuple(fine[side // 2, side * 3 // 4]) == (230, 128, 26, 255)
    assert tuple(fine[0, 0]) == (0, 0, 0, 0)


def test_many_pictures_share_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_files, "MOST_PIXELS", 2 * 260**2)
    path = write_picture(tmp_path / "disc.png", disc(300))
    request = Request("", references=(ReferenceImage(str(path), framing="as-is"),) * 2)
    assert [len(view.fine) for view in prepare(request, lambda _: None) if view.fine is not None] == [260, 260]
