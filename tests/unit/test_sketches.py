"""Sketches: which are kept, where their front is, and how long they count."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from backend.cameras import CameraBatch, orbit_cameras, rays
from backend.errors import Cancelled
from backend.events import Event, Message
from backend.guidance import CombinedGuidance, Guidance, Sketcher, WeightedGuidance, painter
from backend.job import _pictures
from backend.optimize import optimize
from backend.optimize.reference_loss import ReferenceViews
from backend.optimize.sketches import ABOVE, ABOVE_ELEVATION, AZIMUTHS, sketch_views, sketched
from backend.picture import read_picture
from backend.reference import FixedCamera, ReferenceImage
from backend.reference_files import prepare
from backend.request import GuidanceSettings, RefineSettings, Request, ViewGuidanceSettings
from backend.sketch import SketchSettings
from tests.unit.silhouette import SilhouetteGuidance, small_request
from tests.unit.tiny_model import load, make_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SIDE = 48
SPHERES = (((0.0, 0.15, 0.0), 0.45, (0.2, 0.3, 0.9)), ((0.0, -0.5, 0.3), 0.25, (0.9, 0.1, 0.1)))
"""Middle, radius and colour: a blue body, and a red head at the front."""
SETTINGS = SketchSettings(use="on", candidates=5, told_candidates=4)


def request(**changes: Any) -> Request:
    return small_request(9).replace(sketch=dataclasses.replace(SETTINGS, **changes))


def seen(cameras: CameraBatch, side: int, backgrounds: Tensor) -> Tensor:
    """The spheres [B, 3, side, side], before ``backgrounds`` [B, 3, 1, 1]."""
    origins, directions = rays(cameras, side, side)
    nearest = np.full(directions.shape[:3], np.inf)
    image = backgrounds.expand(-1, -1, side, side).clone()
    for middle, radius, colour in SPHERES:
        offset = (origins - np.array(middle, np.float32))[:, None, None, :]
        b = (offset * directions).sum(-1)
        root = b * b - (offset * offset).sum(-1) + radius**2
        distance = np.where(root > 0, -b - np.sqrt(np.maximum(root, 0)), np.inf)
        here = torch.from_numpy(distance < nearest)[:, None]
        nearest = np.minimum(nearest, distance)
        image = torch.where(here, torch.tensor(colour).view(1, 3, 1, 1), image)
    return image.float()


class Draughtsman(SilhouetteGuidance):
    """Draws the spheres; not ``told`` the camera, it draws what is turned as often facing left as right."""

    def __init__(self, plain: bool = True, full: int = 0, told: bool = False, aside: int = 0) -> None:
        super().__init__()
        self.plain, self.full, self.told, self.aside = plain, full, told, aside
        self.drawn: Counter[int] = Counter()

    def repaint(self, images: Tensor, *_: Any) -> Tensor:
        return images

    def economise(self) -> str | None:
        return "One at a time."

    def draw(self, cameras: CameraBatch, settings: SketchSettings, generator: torch.Generator) -> Tensor:
        if self.full:
            self.full -= 1
            raise torch.OutOfMemoryError("full")
        self.drawn.update(round(float(azimuth)) for azimuth in cameras.azimuth)
        image = seen(cameras, SIDE, 0.4 + 0.6 * torch.rand((len(cameras), 3, 1, 1), generator=generator))
        image = image.roll(self.aside, 3)
        if not self.told and float(torch.rand(1, generator=generator)) < 0.5:
            image = image.flip(3)
        return image if self.plain else torch.rand(image.shape, generator=generator)


def begin(
    asked: Request, folder: Path, guidance: Guidance | None, stop: bool = False
) -> tuple[tuple[ReferenceViews, ...], list[str]]:
    events: list[Event] = []
    views = sketched(asked, folder, guidance, CPU, events.append, lambda: stop)
    return views, [event.text for event in events if isinstance(event, Message)]


def picture_of_the_spheres(path: Path) -> ReferenceImage:
    shown = seen(orbit_cameras(20.0, 10.0, 3.0, 40.0), SIDE, torch.ones(1, 3, 1, 1))[0]
    Image.fromarray((shown.permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(path)
    return ReferenceImage(str(path), azimuth=20.0, elevation=10.0)


def compare(folder: Path, name: str, azimuth: float, elevation: float) -> None:
    """A kept sketch, with what is seen from there; its head is where the front, −Y, is."""
    kept = read_picture(folder / "references" / f"sketch-{name}.png").rgba
    true = seen(orbit_cameras(azimuth, elevation, 3.0, 40.0), SIDE, torch.ones(1, 3, 1, 1))[0]
    assert np.mean((kept[..., 3] > 0.5) == (true.min(0).values.numpy() < 0.95)) > 0.95, name
    red = (kept[..., 0] > 0.6) & (kept[..., 2] < 0.4) & (kept[..., 3] > 0.5)
    head = (red * np.arange(SIDE)).sum() / red.sum() if red.any() else SIDE / 2
    if name.endswith(("right", "left")) and red.any():
        assert (head < SIDE / 2) == (name.endswith("right")), name


@pytest.mark.parametrize("seed", range(4))
def test_what_is_turned_faces_where_the_front_is(tmp_path: Path, seed: int) -> None:
    """Whichever way the kept drawings of the side and of the views beside it look: from +X the front is at the left."""
    views, said = begin(request().replace(seed=seed), tmp_path, Draughtsman())
    assert said == []
    assert len(views) == 1
    for name, azimuth in AZIMUTHS.items():
        compare(tmp_path, name, azimuth, SETTINGS.elevation)


@pytest.mark.parametrize(("symmetry", "drawn"), [("mirror", {0, 45, 90, 135, 180}), ("none", set(AZIMUTHS.values()))])
def test_who_knows_the_camera_is_told_it(tmp_path: Path, symmetry: str, drawn: set[int]) -> None:
    asked = request().with_setting("optimize.symmetry", symmetry)
    guidance = Draughtsman(told=True)
    views, _ = begin(asked, tmp_path, guidance)
    assert views
    assert {abs(azimuth) if azimuth == -180 else azimuth for azimuth in guidance.drawn} == drawn
    assert sum(guidance.drawn.values()) == (len(drawn) + 1) * SETTINGS.told_candidates
    for name, azimuth in AZIMUTHS.items():
        compare(tmp_path, name, azimuth, SETTINGS.elevation)
    compare(tmp_path, ABOVE, 0.0, ABOVE_ELEVATION)
    assert len(sketch_views(asked, tmp_path)) == len(AZIMUTHS) + 1


@pytest.mark.parametrize("told", [False, True])
def test_views_along_the_mirror_are_their_own_mirror_images(tmp_path: Path, told: bool) -> None:
    """Drawings of them that are off to one side come to the middle."""
    begin(request(), tmp_path, Draughtsman(told=told, aside=4))
    for name in ("front", "back", *((ABOVE,) if told else ())):
        kept = read_picture(tmp_path / "references" / f"sketch-{name}.png").rgba
        assert np.mean(np.abs(kept[..., 3] - kept[:, ::-1, 3])) < 0.01, name
        compare(tmp_path, name, AZIMUTHS.get(name, 0.0), ABOVE_ELEVATION if name == ABOVE else SETTINGS.elevation)


def test_what_was_drawn_is_not_drawn_again(tmp_path: Path) -> None:
    guidance = Draughtsman()
    begin(request(), tmp_path, guidance)
    assert guidance.drawn.total() == 5 * SETTINGS.candidates
    files = {path: path.read_bytes() for path in (tmp_path / "references").iterdir()}
    assert len(files) == len(AZIMUTHS)
    views, _ = begin(request(), tmp_path, guidance)
    assert views
    assert guidance.drawn.total() == 5 * SETTINGS.candidates
    next(iter(files)).unlink()  # a run that was killed while it wrote them draws the same
    begin(request(), tmp_path, guidance)
    assert {path: path.read_bytes() for path in (tmp_path / "references").iterdir()} == files


def test_the_mesh_takes_their_outline_and_not_their_colours(tmp_path: Path) -> None:
    assert sketch_views(request(), tmp_path) == ()
    begin(request(), tmp_path, Draughtsman())
    views = sketch_views(request(), tmp_path)
    assert [round(float(view.camera.azimuth[0])) for view in views] == list(AZIMUTHS.values())
    taken = _pictures(request(), (), tmp_path)
    assert (taken.colours, taken.outline) == (0.0, 1.0)
    for view, shown in zip(taken.views, views, strict=True):
        assert np.array_equal(view.rgba, np.rint(shown.shown.rgba * 255)) and view.rgba.dtype == np.uint8
    assert _pictures(request(use="off"), (), tmp_path).views == ()
    assert _pictures(request(mask_weight=0.0), (), tmp_path).outline == 0.0


def test_full_memory_is_met_with_smaller_steps(tmp_path: Path) -> None:
    views, said = begin(request(), tmp_path, Draughtsman(full=1))
    assert views
    assert said == ["One at a time."]


def test_drawings_without_a_plain_background_are_none(tmp_path: Path) -> None:
    guidance = Draughtsman(plain=False)
    views, said = begin(request(), tmp_path, guidance)
    assert views == ()
    assert "begins without them" in said[0]
    assert guidance.drawn.total() == SETTINGS.candidates  # the other views are not tried
    assert list(tmp_path.iterdir()) == []
    *_, metrics = optimize(request(), tmp_path, Draughtsman(plain=False), CPU, lambda _: None, lambda: False)
    assert metrics["sketching_seconds"] > 0


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        begin(request(), tmp_path, Draughtsman(), stop=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"sketch": SketchSettings(use="off")},
        {"sketch": SketchSettings(use="auto"), "model": "a-folder"},
        {"sketch": SketchSettings(use="on", share=0.0)},
        {"sketch": SketchSettings(use="auto"), "references": (ReferenceImage("duck.png"),), "view_model": "a-folder"},
        {"sketch": SketchSettings(use="auto"), "references": (ReferenceImage("duck.png"),), "view_model": "none"},
        {"cameras": (FixedCamera(((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 3), (0, 0, 0, 1)), (2.7, 2.7)),)},
    ],
)
def test_there_are_none_where_they_are_of_no_use(tmp_path: Path, changes: dict[str, Any]) -> None:
    guidance = Draughtsman()
    assert begin(request().replace(**changes), tmp_path, guidance)[0] == ()
    assert not guidance.drawn


def test_the_built_in_models_sketch() -> None:
    assert Request(prompt="a duck").sketches
    assert Request(prompt="", references=(ReferenceImage("duck.png"),)).sketches
    assert Request(prompt="a duck", model="another", references=(ReferenceImage("duck.png"),)).sketches
    assert not Request(prompt="", references=(ReferenceImage("duck.png"), ReferenceImage("back.png"))).sketches
    heavy = ViewGuidanceSettings(prompt_weight=2.0)
    assert not Request(prompt="a duck", view_guidance=heavy, references=(ReferenceImage("duck.png"),)).sketches
    assert Request(prompt="a duck", guidance=GuidanceSettings(camera_conditioning=False)).sketches
    assert not Request(prompt="a duck", model="another").sketches


def test_they_count_beside_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are looked at, and the mesh goes by the pictures alone."""
    picture = picture_of_the_spheres(tmp_path / "spheres.png")
    asked = request(share=0.5).replace(references=(picture,), view_model="a-folder", refine=RefineSettings(0))
    assert asked.sketches and not asked.replace(sketch=SketchSettings(use="auto")).sketches
    references = prepare(asked, lambda _: None)
    looks: list[tuple[int, float]] = []
    aim = ReferenceViews.aim

    def watched(self: ReferenceViews, progress: float, *others: Any, **named: Any) -> Any:
        looks.append((len(self.weights), progress))
        return aim(self, progress, *others, **named)

    begin(asked, tmp_path, Draughtsman(told=True))
    monkeypatch.setattr(ReferenceViews, "aim", watched)
    *_, metrics = optimize(asked, tmp_path, Draughtsman(told=True), CPU, lambda _: None, lambda: False, references)
    assert metrics["sketching_seconds"] > 0
    steps = [step / 8 for step in range(9)]
    assert sorted(looks) == [*((1, step) for step in steps), *((9, step) for step in steps if step < 0.5)]
    assert len(_pictures(asked, references, tmp_path).views) == 1


def test_who_cannot_draw_is_not_asked(tmp_path: Path) -> None:
    assert begin(request(), tmp_path, SilhouetteGuidance())[0] == ()
    assert begin(request(), tmp_path, None)[0] == ()


def test_they_count_at_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    aim = ReferenceViews.aim

    def watched(self: ReferenceViews, progress: float, *others: Any, **named: Any) -> Any:
        looks.append(progress)
        return aim(self, progress, *others, **named)

    begin(request(share=0.3), tmp_path, Draughtsman())
    monkeypatch.setattr(ReferenceViews, "aim", watched)
    optimize(request(share=0.3), tmp_path, Draughtsman(), CPU, lambda _: None, lambda: False)
    assert looks == [0.0, 0.125, 0.25]  # of nine steps


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_pipeline().save_pretrained(folder)
    return load(folder)


def test_a_model_draws_what_its_generator_says(tiny: Any) -> None:
    assert painter(CombinedGuidance({"prompt": WeightedGuidance(tiny, 1.0)})) is tiny
    assert isinstance(tiny, Sketcher)
    cameras = orbit_cameras([0.0, 90.0], 15.0, 3.0, 40.0)
    settings = SketchSettings(sampling_steps=3)
    one, same, other = (tiny.draw(cameras, settings, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == (2, 3, 16, 16)
    assert float(one.min()) >= 0
    assert float(one.max()) <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
