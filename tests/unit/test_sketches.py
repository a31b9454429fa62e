"""Sketches: which are kept, where their front is, and how long they count."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.cameras import CameraBatch, orbit_cameras, rays
from backend.errors import Cancelled
from backend.events import Event, Message
from backend.guidance import CombinedGuidance, Guidance, Sketcher, WeightedGuidance, painter
from backend.job import _pictures
from backend.optimize import optimize
from backend.optimize.reference_loss import ReferenceViews
from backend.optimize.sketches import AZIMUTHS, sketch_views, sketched
from backend.picture import read_picture
from backend.reference import FixedCamera, ReferenceImage
from backend.request import GuidanceSettings, Request
from backend.sketch import SketchSettings
from tests.unit.silhouette import SilhouetteGuidance, small_request
from tests.unit.tiny_model import load, make_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SIDE = 48
SPHERES = (((0.0, 0.15, 0.0), 0.45, (0.2, 0.3, 0.9)), ((0.0, -0.5, 0.3), 0.25, (0.9, 0.1, 0.1)))
"""Middle, radius and colour: a blue body, and a red head at the front."""
SETTINGS = SketchSettings(use="on", candidates=5, trial_steps=60)


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
    """Draws the spheres, from the side as often facing left as right, and knows a wrong view when it sees one."""

    def __init__(self, plain: bool = True, full: int = 0) -> None:
        super().__init__()
        self.plain, self.full = plain, full
        self.drawn = 0

    def repaint(self, images: Tensor, *_: Any) -> Tensor:
        return images

    def economise(self) -> str | None:
        return "One at a time."

    def draw(self, cameras: CameraBatch, settings: SketchSettings, generator: torch.Generator) -> Tensor:
        if self.full:
            self.full -= 1
            raise torch.OutOfMemoryError("full")
        self.drawn += len(cameras)
        image = seen(cameras, SIDE, 0.4 + 0.6 * torch.rand((len(cameras), 3, 1, 1), generator=generator))
        if float(torch.rand(1, generator=generator)) < 0.5:
            image = image.flip(3)
        return image if self.plain else torch.rand(image.shape, generator=generator)

    def misfit(self, images: Tensor, cameras: CameraBatch, share: float, generator: torch.Generator) -> Tensor:
        return (images - seen(cameras, images.shape[-1], images[:, :, :1, :1])).square().mean((1, 2, 3))


def begin(
    asked: Request, folder: Path, guidance: Guidance | None, stop: bool = False
) -> tuple[ReferenceViews | None, list[str]]:
    events: list[Event] = []
    views = sketched(asked, folder, guidance, CPU, events.append, lambda: stop)
    return views, [event.text for event in events if isinstance(event, Message)]


@pytest.mark.parametrize("seed", range(4))
def test_the_side_faces_where_the_front_is(tmp_path: Path, seed: int) -> None:
    """Whichever way the kept drawing of the side looks: seen from +X the front, −Y, is at the left."""
    views, said = begin(request().replace(seed=seed), tmp_path, Draughtsman())
    assert said == []
    assert isinstance(views, ReferenceViews)
    columns = np.arange(SIDE)
    for name, azimuth in AZIMUTHS.items():
        kept = read_picture(tmp_path / "references" / f"sketch-{name}.png").rgba
        true = seen(orbit_cameras(azimuth, SETTINGS.elevation, 3.0, 40.0), SIDE, torch.ones(1, 3, 1, 1))[0]
        assert np.mean((kept[..., 3] > 0.5) == (true.min(0).values.numpy() < 0.95)) > 0.95, name
        red = (kept[..., 0] > 0.6) & (kept[..., 2] < 0.4) & (kept[..., 3] > 0.5)
        if name in ("right", "left"):
            head = (red * columns).sum() / red.sum()
            assert (head < SIDE / 2) == (name == "right")


def test_what_was_drawn_is_not_drawn_again(tmp_path: Path) -> None:
    guidance = Draughtsman()
    begin(request(), tmp_path, guidance)
    assert guidance.drawn == 3 * SETTINGS.candidates
    files = {path: path.read_bytes() for path in (tmp_path / "references").iterdir()}
    assert len(files) == len(AZIMUTHS)
    views, _ = begin(request(), tmp_path, guidance)
    assert views is not None
    assert guidance.drawn == 3 * SETTINGS.candidates
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
    assert views is not None
    assert said == ["One at a time."]


def test_drawings_without_a_plain_background_are_none(tmp_path: Path) -> None:
    guidance = Draughtsman(plain=False)
    views, said = begin(request(), tmp_path, guidance)
    assert views is None
    assert "begins without them" in said[0]
    assert guidance.drawn == SETTINGS.candidates  # the other views are not tried
    assert list(tmp_path.iterdir()) == []


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        begin(request(), tmp_path, Draughtsman(), stop=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"sketch": SketchSettings(use="off")},
        {"sketch": SketchSettings(use="auto"), "model": "a-folder"},
        {"sketch": SketchSettings(use="auto"), "model": "toybox"},  # which is told the camera
        {"sketch": SketchSettings(use="on", share=0.0)},
        {"references": (ReferenceImage("duck.png"),)},
        {"cameras": (FixedCamera(((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 3), (0, 0, 0, 1)), (2.7, 2.7)),)},
    ],
)
def test_there_are_none_where_they_are_of_no_use(tmp_path: Path, changes: dict[str, Any]) -> None:
    guidance = Draughtsman()
    assert begin(request().replace(**changes), tmp_path, guidance)[0] is None
    assert guidance.drawn == 0


def test_the_built_in_model_sketches_where_it_is_asked_by_words_alone() -> None:
    alone = GuidanceSettings(camera_conditioning=False)
    assert Request(prompt="a duck", guidance=alone).sketches
    assert not Request(prompt="a duck", guidance=alone, model="another").sketches
    assert not Request(prompt="a duck").sketches


def test_who_cannot_draw_is_not_asked(tmp_path: Path) -> None:
    assert begin(request(), tmp_path, SilhouetteGuidance())[0] is None
    assert begin(request(), tmp_path, None)[0] is None


def test_they_count_at_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    look = ReferenceViews.look

    def watched(self: ReferenceViews, progress: float, *others: Any, **named: Any) -> Any:
        looks.append(progress)
        return look(self, progress, *others, **named)

    begin(request(share=0.3), tmp_path, Draughtsman())
    monkeypatch.setattr(ReferenceViews, "look", watched)
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


def test_misfit_is_the_error_of_the_noise_by_the_words_alone(tiny: Any) -> None:
    """Against the network's own answer to the prompt's embeddings."""
    cameras = orbit_cameras([0.0, 135.0], 15.0, 3.0, 40.0)
    images = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(4))
    found = tiny.misfit(images, cameras, 0.5, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        latents = tiny.encode(images, generator)
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.full((2,), round(0.5 * tiny.schedule.last))
        front, back = tiny.text.views[0], (tiny.text.views[1] + tiny.text.views[2]) / 2
        words = torch.stack([front, back])
        answer = tiny.networks.denoiser(tiny.schedule.add_noise(latents, noise, times), times, words).sample
    torch.testing.assert_close(found, (answer - noise).square().mean((1, 2, 3)), rtol=1e-4, atol=1e-5)
