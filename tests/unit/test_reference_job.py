"""Jobs from pictures: the folder keeps them, a stopped job needs no originals, bad pictures leave nothing behind."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import backend.guidance
from backend import cli
from backend.cameras import orbit_cameras
from backend.errors import Cancelled, ModelError, OutputError, PictureError, RequestError
from backend.events import Event, Message, Phase, Preview, Progress
from backend.guidance.combined import CombinedGuidance
from backend.guidance.zero123 import Zero123Guidance
from backend.job import _load_guidance, run_job
from backend.reference import FixedCamera, ReferenceImage, resolved
from backend.reference_files import bind, prepare
from backend.request import LoadingSettings, ReferenceSettings, RefineSettings, Request, ViewGuidanceSettings
from tests.unit import tiny_model, tiny_zero123
from tests.unit.reference_world import write_picture
from tests.unit.silhouette import BluePainter, small_request

CPU = torch.device("cpu")
SETTINGS = ReferenceSettings(rays=16, resolution=32, resolution_start=16)
SMALL = small_request(12, resolution=16, checkpoint_every=4).replace(
    prompt="", device="cpu", view_model="none", reference=SETTINGS
)
SMALL_OPTIONS = (
    *("--set", "optimize.resolution=16", "--set", "optimize.samples_per_ray=24", "--faces", "300"),
    *("--set", "optimize.occupancy_resolution=16", "--set", "reference.rays=12", "--texture-size", "64"),
    *("--iterations", "4", "--grid-resolution", "24", "--device", "cpu", "--view-model", "none"),
)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setenv("DREAMLATHE_THREADS", "1")
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


def disc(size: int = 48, radius: float = 0.6) -> np.ndarray:
    """[S, S, 4]: an orange disc with a blue left half."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    rgba = np.zeros((size, size, 4), np.float32)
    rgba[..., :3] = np.where(x[..., None] < 0, (0.1, 0.3, 0.8), (0.9, 0.5, 0.1))
    rgba[..., 3] = np.hypot(x, y) < radius
    return rgba


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return write_picture(tmp_path / "disc.png", disc())


def never() -> bool:
    return False


def nothing(_: Event) -> None:
    pass


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def stop_after(steps: int) -> Any:
    """Stops when it was asked that often in the steps."""
    stepping, asked = False, 0

    def report(event: Event) -> None:
        nonlocal stepping
        stepping = (isinstance(event, Phase) and event.name == "optimize") or stepping

    def should_stop() -> bool:
        nonlocal asked
        asked += stepping
        return asked > steps

    return report, should_stop


def test_a_job_keeps_its_pictures_and_what_is_seen_of_them(picture: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    y = np.linspace(1, 2, 48, dtype=np.float32)[:, None].repeat(48, axis=1)
    np.save(tmp_path / "depth.npy", y)
    request = SMALL.replace(references=(ReferenceImage(str(picture), 20.0, depth=str(tmp_path / "depth.npy")),))
    folder = run_job(request, tmp_path / "job", events.append, never)
    kept = {name for name in files_of(folder) if name.startswith("references/")}
    assert kept == {"references/1.png", "references/1-depth.npy", "references/1-seen.png"}
    assert (folder / "references" / "1.png").read_bytes() == picture.read_bytes()
    seen = np.asarray(Image.open(folder / "references" / "1-seen.png"))
    assert seen.shape[1] == 2 * seen.shape[0]  # the picture and its depth
    previews = [event for event in events if isinstance(event, Preview)]
    assert (Path(previews[0].path).name, previews[0].step) == ("1-seen.png", 0)
    order = [event.name for event in events if isinstance(event, Phase)]
    assert list(dict.fromkeys(order)) == ["environment", "optimize", "mesh", "bake", "done"]
    assert any("by its transparency" in event.text for event in events if isinstance(event, Message))
    written = Request.from_json((folder / "request.json").read_text())
    assert written.references[0].file == "references/1.png"
    assert written.references[0].name == "disc.png"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["request"] == written.digest()
    assert set(metrics["optimize"]["references"][0]) == {"psnr", "mask_iou"}
    assert "info: disc.png" in (folder / "log.txt").read_text()


def test_a_stopped_job_goes_on_without_the_originals(picture: Path, tmp_path: Path) -> None:
    request = SMALL.replace(references=(ReferenceImage(str(picture)),))
    whole = run_job(request, tmp_path / "whole", nothing, never)
    with pytest.raises(Cancelled):
        run_job(request, tmp_path / "parts", *stop_after(7))
    picture.unlink()
    assert cli.main(["generate", "--resume", "--out", str(tmp_path / "parts")]) == 0
    assert (tmp_path / "parts" / "mesh.glb").read_bytes() == (whole / "mesh.glb").read_bytes()
    assert files_of(tmp_path / "parts") == files_of(whole)
    moved = (tmp_path / "parts").rename(tmp_path / "elsewhere")
    assert cli.main(["generate", "--resume", "--out", str(moved)]) == 0  # finished, wherever it lies


def test_a_changed_picture_is_noticed(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = SMALL.replace(references=(ReferenceImage(str(picture)),))
    folder = tmp_path / "job"
    with pytest.raises(Cancelled):
        run_job(request, folder, *stop_after(7))
    write_picture(picture, disc(radius=0.5))
    with pytest.raises(OutputError, match="another request"):
        run_job(request, folder, nothing, never)
    write_picture(folder / "references" / "1.png", disc(radius=0.5))
    assert cli.main(["generate", "--resume", "--out", str(folder)]) == 2
    assert "is not the picture that the job began with" in capsys.readouterr().err
    run_job(request, folder, nothing, never, redo=True)
    assert (folder / "references" / "1.png").read_bytes() == picture.read_bytes()


def test_a_finished_job_is_known_by_its_pictures_content(picture: Path, tmp_path: Path) -> None:
    def request_of(path: Path) -> Request:
        return SMALL.replace(references=(ReferenceImage(str(path)),))

    folder = run_job(request_of(picture), tmp_path / "job", nothing, never)
    events: list[Event] = []
    run_job(request_of(picture.rename(tmp_path / "other name.png")), folder, events.append, never)
    assert [event.name for event in events if isinstance(event, Phase)] == ["done"]


def test_redo_from_the_folders_own_pictures(picture: Path, tmp_path: Path) -> None:
    folder = run_job(SMALL.replace(references=(ReferenceImage(str(picture)),)), tmp_path / "job", nothing, never)
    own = str(folder / "request.json")
    before = (folder / "mesh.glb").read_bytes()
    assert cli.main(["generate", "--request", own, "--redo", "--out", str(folder)]) == 0
    assert (folder / "mesh.glb").read_bytes() == before
    assert cli.main(["generate", "--request", own, "--out", str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy" / "mesh.glb").read_bytes() == before


def test_more_steps_need_no_originals(picture: Path, tmp_path: Path) -> None:
    request = SMALL.replace(references=(ReferenceImage(str(picture)),))
    folder = run_job(request, tmp_path / "job", nothing, never)
    picture.unlink()
    kept = Request.from_json((folder / "request.json").read_text())
    more = dataclasses.replace(kept.optimize, iterations=20)
    longer = kept.replace(optimize=more, references=resolved(kept.references, folder))
    events: list[Event] = []
    run_job(longer, tmp_path / "longer", events.append, never, start_from=folder)
    assert min(event.step for event in events if isinstance(event, Progress) and event.total == 20) > 12
    assert files_of(tmp_path / "longer") == files_of(folder)
    write_picture(tmp_path / "other.png", disc(radius=0.4))
    other = longer.replace(references=(ReferenceImage(str(tmp_path / "other.png")),))
    with pytest.raises(RequestError, match="differs in more"):
        run_job(other, tmp_path / "other", nothing, never, start_from=folder)


def test_models_are_fetched_only_if_they_may_be(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def refuse(model: str, allow_download: bool, *_: object, **__: object) -> None:
        asked.append(allow_download)
        raise ModelError("Not today.", "Come again.")

    monkeypatch.setattr("backend.guidance.model_folder.open_model", refuse)
    plain = SMALL.replace(prompt="a red duck", model="someone/words")
    shown = SMALL.replace(references=(ReferenceImage(str(picture)),), view_model="someone/views")
    for allowed in ("1", ""):
        monkeypatch.setenv("DREAMLATHE_DOWNLOADS", allowed)
        for request in (plain, shown):
            with pytest.raises(ModelError, match="Not today"):
                run_job(request, tmp_path / "job", nothing, never)
    assert asked == [True, True, False, False]


def test_the_command_line_makes_a_mesh_of_pictures(picture: Path, tmp_path: Path, capsys: Any) -> None:
    other = write_picture(tmp_path / "back.png", disc(radius=0.7))
    out = tmp_path / "out"
    images = ("--image", str(picture), "--azimuth", "-30", "--fov", "30", "--image", str(other), "--azimuth", "180")
    assert cli.main(["generate", *images, *SMALL_OPTIONS, "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out / "mesh.glb")
    references = Request.from_json((out / "request.json").read_text()).references
    assert [(each.azimuth, each.field_of_view) for each in references] == [(-30.0, 30.0), (180.0, 40.0)]
    assert cli.main(["inspect", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 2


# --- bad pictures, through the command line


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


# --- models that are shown the pictures


@pytest.fixture(scope="module")
def view_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_zero123.write_folder(tmp_path_factory.mktemp("model") / "zero123")


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "text"
    tiny_model.make_pipeline().save_pretrained(folder)
    return folder


def guided(picture: Path, view_model: Any, **changes: Any) -> Request:
    return SMALL.replace(references=(ReferenceImage(str(picture), 15.0),), view_model=str(view_model), **changes)


def guidance_of(request: Request) -> Any:
    bound = bind(request.validated())[0]
    return _load_guidance(bound, prepare(bound, nothing), CPU, nothing)


def test_a_model_is_shown_the_picture_in_its_camera(picture: Path, view_model: Path) -> None:
    guidance = guidance_of(guided(picture, view_model))
    assert isinstance(guidance, Zero123Guidance)
    assert guidance.references.cameras.azimuth[0] == pytest.approx(15.0)
    assert len(guidance.references.latents) == 1


def test_prompt_and_picture_guide_together(picture: Path, view_model: Path, text_model: Path) -> None:
    request = guided(picture, view_model, prompt="a red duck", model=str(text_model))
    both = guidance_of(request)
    assert isinstance(both, CombinedGuidance)
    assert {name: part.weight for name, part in both.parts.items()} == {"pictures": 1.0, "prompt": 0.025}
    assert isinstance(
        guidance_of(request.replace(view_guidance=ViewGuidanceSettings(prompt_weight=0.0))), Zero123Guidance
    )
    assert type(guidance_of(request.replace(view_model="none"))).__name__ == "StableDiffusionGuidance"
    assert guidance_of(SMALL.replace(references=request.references)) is None


def test_prompts_of_cameras_reach_the_model(picture: Path, text_model: Path) -> None:
    pose = tuple(map(tuple, orbit_cameras([30.0], 10.0, 3.0, 40.0).camera_to_world[0].astype(float).tolist()))
    seen = tuple(FixedCamera(pose, (2.0, 2.0), prompt=words) for words in ("", "a blue car", "a car"))
    request = guided(picture, "none", prompt="a red duck", model=str(text_model), cameras=seen)
    request = request.replace(loading=LoadingSettings(image_size=8))
    guidance = guidance_of(request)
    assert len(guidance.text.views) == 12
    assert guidance.image_size == (8, 8)


def test_a_guided_job_resumes_to_the_same_mesh(
    picture: Path, view_model: Path, text_model: Path, tmp_path: Path
) -> None:
    request = guided(picture, view_model, prompt="a red duck", model=str(text_model))
    request = request.replace(
        optimize=dataclasses.replace(request.optimize, iterations=8),
        refine=RefineSettings(iterations=6, views=4, visits=1, sampling_steps=2),
    )
    whole = run_job(request, tmp_path / "whole", nothing, never)
    with pytest.raises(Cancelled):
        run_job(request, tmp_path / "parts", *stop_after(5))
    with pytest.raises(Cancelled):
        run_job(request, tmp_path / "parts", *stop_after(12))
    run_job(request, tmp_path / "parts", nothing, never)
    assert (tmp_path / "parts" / "mesh.glb").read_bytes() == (whole / "mesh.glb").read_bytes()
    assert json.loads((whole / "metrics.json").read_text())["optimize"]["loss"] > 0


@pytest.mark.parametrize("alone", [False, True])
def test_steps_of_the_picture_alone_ask_no_model_but_for_paintings(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    blue = BluePainter()
    monkeypatch.setattr(backend.guidance, "load_view_guidance", lambda *_: blue)
    reference = dataclasses.replace(SETTINGS, alone=alone, interval=3)
    painted = RefineSettings(iterations=6, views=4, visits=1, sampling_steps=2)
    request = guided(picture, "toybox-views", reference=reference, refine=painted)
    metrics = json.loads((run_job(request, tmp_path / "job", nothing, never) / "metrics.json").read_text())
    assert metrics["optimize"]["steps"] == 18
    assert blue.calls == (8 if alone else 12)
    assert len(blue.painted) == 6


def test_a_model_that_is_missing_or_of_another_family_leaves_nothing(
    picture: Path, text_model: Path, tmp_path: Path
) -> None:
    for model, said in ((text_model, "cannot be shown a picture"), (tmp_path / "none", "no model folder")):
        with pytest.raises(ModelError, match=said):
            run_job(guided(picture, model), tmp_path / "job", nothing, never)
    assert not (tmp_path / "job").exists()


def test_a_bad_picture_fails_before_a_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(backend.guidance, "load_view_guidance", refuse)
    monkeypatch.setattr(backend.guidance, "load_guidance", refuse)
    path = _save(tmp_path / "flat.png", Image.new("RGB", (64, 64)))
    with pytest.raises(PictureError, match="all one colour"):
        run_job(guided(path, "toybox-views", prompt="a duck"), tmp_path / "job", nothing, never)
