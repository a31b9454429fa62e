"""The loop with a guidance that knows its target: it gets there, repeats, resumes bit for bit, notices a dead field."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.cameras import orbit_cameras
from backend.checkpoint import NEWEST, PREVIOUS
from backend.errors import Cancelled, DivergedError, OutputError
from backend.events import Event, Message, Preview, Progress
from backend.field import Field
from backend.guidance import GuidanceResult
from backend.health import PATIENCE
from backend.optimize import loop, losses, optimize
from backend.rendering import OccupancyGrid, Renderer, Shading, linear_to_srgb
from backend.request import FixedCamera, Request
from tests.unit.silhouette import RED, SilhouetteGuidance, silhouettes, small_request

CPU = torch.device("cpu")
Spoil = Callable[[int, GuidanceResult], GuidanceResult]


pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(BaseException):
    """What a kill does to the process: nothing is tidied up."""


def run(
    request: Request, folder: Path, spoil: Spoil | None = None, stop_at: int = -1, kill_at: int = -1
) -> tuple[Field, OccupancyGrid, dict[str, Any], list[Event]]:
    events: list[Event] = []
    calls = 0

    def should_stop() -> bool:
        nonlocal calls
        calls += 1
        if calls - 1 == kill_at:
            raise Killed
        return calls - 1 == stop_at

    folder.mkdir(exist_ok=True)
    guidance = SilhouetteGuidance(spoil)
    field, occupancy, metrics = optimize(request, folder, guidance, CPU, events.append, should_stop)
    return field, occupancy, metrics, events


REQUEST = small_request(25, learned_background=0.3, textureless_share=0.3, checkpoint_every=10)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """REQUEST, never ended."""
    torch.set_num_threads(1)
    return run(REQUEST, tmp_path_factory.mktemp("whole"))


def warnings_of(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Message) and event.level == "warning"]


def assert_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    """Field, occupancy and every number but the time."""
    for a, b in zip(one[:2], other[:2], strict=True):
        assert a.state_dict().keys() == b.state_dict().keys()
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    timed = {"seconds", "sketching_seconds", "steps_per_second"}
    assert {k: v for k, v in one[2].items() if k not in timed} == {k: v for k, v in other[2].items() if k not in timed}


def render(field: Field, occupancy: OccupancyGrid, azimuth: list[float], side: int = 32) -> tuple[Tensor, Tensor]:
    cameras = orbit_cameras(azimuth, 20.0, 3.0, 40.0)
    with torch.no_grad():
        grey = torch.full((3,), 0.5)
        out = Renderer(field, occupancy, 48).render(cameras, side, side, shading=Shading(), background=grey, rng=None)
    return out.opacity, linear_to_srgb(out.rgb)


def test_it_makes_what_the_guidance_asks_for(tmp_path: Path) -> None:
    field, occupancy, metrics, events = run(small_request(120, shaded_share=0.4, learning_rate=0.02), tmp_path)
    azimuth = [10.0, 100.0, -120.0]
    opacity, colour = render(field, occupancy, azimuth)
    wanted = silhouettes(orbit_cameras(azimuth, 20.0, 3.0, 40.0), 32)
    seen = opacity > 0.5
    overlap = (seen & wanted).sum() / (seen | wanted).sum()
    assert overlap > 0.8
    red, green, blue = colour[seen & wanted].mean(0)
    assert red == pytest.approx(RED[0], abs=0.15)
    assert max(green, blue) < 0.35  # some of the steps were shaded, and asked for the same colour
    assert metrics["steps"] == 120
    assert metrics["restarts"] == 0
    assert warnings_of(events) == []


def test_previews_come_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many steps there are between two of them."""
    monkeypatch.setattr(loop, "_PREVIEW_SECONDS", 0.0)
    *_, events = run(small_request(4, preview_every=1000), tmp_path)
    assert [event.step for event in events if isinstance(event, Preview)] == [0, 1, 2, 3, 4]


def test_a_preview_comes_before_a_step_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the next step would make the wait longer than the limit, going by the last ones."""
    monkeypatch.setattr(loop, "_PREVIEW_SECONDS", 1e9)
    clock = iter(range(0, 10**6, 2))  # each look at the clock is two seconds after the last one
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(loop, "_PREVIEW_LIMIT", 1e9)
    *_, events = run(small_request(4, preview_every=1000), tmp_path / "patient")
    assert [event.step for event in events if isinstance(event, Preview)] == [0, 4]
    monkeypatch.setattr(loop, "_PREVIEW_LIMIT", 5.0)
    *_, events = run(small_request(4, preview_every=1000), tmp_path / "slow")
    assert [event.step for event in events if isinstance(event, Preview)] == [0, 1, 2, 3, 4]


def test_events_tell_of_progress_and_previews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_PREVIEW_SECONDS", 1e9)
    *_, events = run(small_request(20, preview_every=10), tmp_path)
    previews = [event for event in events if isinstance(event, Preview)]
    assert [event.step for event in previews] == [0, 10, 20]
    assert Path(previews[0].path).read_bytes().startswith(b"\x89PNG")
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert (last.step, last.total, last.seconds_left) == (20, 20, 0.0)


def test_the_same_request_gives_the_same_field(tmp_path: Path, whole: tuple[Any, ...]) -> None:
    assert_same(whole, run(REQUEST, tmp_path / "other"))
    third = run(REQUEST.replace(seed=4), tmp_path / "third")
    assert not torch.equal(whole[0].grid, third[0].grid)


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("step", [1, 10, 17])
def test_a_run_that_was_ended_goes_on_to_the_same_result(
    tmp_path: Path, how: str, step: int, whole: tuple[Any, ...]
) -> None:
    with pytest.raises(Cancelled if how == "stop" else Killed):
        run(REQUEST, tmp_path, stop_at=step if how == "stop" else -1, kill_at=step if how == "kill" else -1)
    resumed = run(REQUEST, tmp_path)
    assert_same(whole, resumed)
    said = [e.text for e in resumed[3] if isinstance(e, Message)]
    expected = step if how == "stop" else step // 10 * 10
    assert said == ([f"Going on from step {expected}."] if expected else [])


def test_a_run_that_was_ended_many_times_gives_the_same_result(tmp_path: Path, whole: tuple[Any, ...]) -> None:
    for step in (3, 4, 9):
        with pytest.raises(Cancelled):
            run(REQUEST, tmp_path, stop_at=step)
    assert_same(whole, run(REQUEST, tmp_path))


def test_previews_and_checkpoints_change_nothing(tmp_path: Path, whole: tuple[Any, ...]) -> None:
    often = dataclasses.replace(REQUEST.optimize, preview_every=6, checkpoint_every=3)
    assert_same(whole, run(REQUEST.replace(optimize=often), tmp_path))


def test_a_finished_run_is_only_read(tmp_path: Path, whole: tuple[Any, ...]) -> None:
    run(REQUEST, tmp_path)
    assert_same(whole, run(REQUEST, tmp_path, spoil=lambda *_: pytest.fail("a step was made")))


def test_a_damaged_checkpoint_falls_back_with_a_warning(tmp_path: Path, whole: tuple[Any, ...]) -> None:
    with pytest.raises(Killed):
        run(REQUEST, tmp_path, kill_at=23)
    path = tmp_path / NEWEST
    path.write_bytes(path.read_bytes()[:-100])
    resumed = run(REQUEST, tmp_path)
    assert_same(whole, resumed)
    assert len(warnings_of(resumed[3])) == 1
    assert NEWEST in warnings_of(resumed[3])[0]


def test_another_requests_checkpoint_is_refused(tmp_path: Path) -> None:
    run(small_request(10), tmp_path)
    with pytest.raises(OutputError, match="another request"):
        run(small_request(10).replace(seed=9), tmp_path)


def test_guidance_is_told_the_progress_and_gets_the_scheduled_sizes(tmp_path: Path) -> None:
    guidance = SilhouetteGuidance()
    request = small_request(11, batch_size=2, resolution=40, coarse_share=0.5)
    optimize(request, tmp_path, guidance, CPU, lambda _: None, lambda: False)
    assert guidance.progress == pytest.approx(np.linspace(0, 1, 11))
    assert guidance.shapes == [(2, 3, 20, 20)] * 6 + [(2, 3, 40, 40)] * 5


def test_fixed_cameras_are_used_when_given(tmp_path: Path) -> None:
    poses = orbit_cameras([0.0, 70.0], 10.0, 2.5, 45.0)
    cameras = tuple(
        FixedCamera(tuple(map(tuple, pose.astype(float).tolist())), (float(focal[0]), float(focal[1])))
        for pose, focal in zip(poses.camera_to_world, poses.focal, strict=True)
    )
    cameras = (cameras[0], dataclasses.replace(cameras[1], prompt="its side"))
    seen: list[float] = []
    asked: set[tuple[float, int]] = set()

    class Watch(SilhouetteGuidance):
        def gradient(self, images: Tensor, cameras: Any, progress: float, generator: torch.Generator) -> GuidanceResult:
            seen.extend(np.round(cameras.azimuth, 3).tolist())
            asked.update(zip(np.round(cameras.azimuth, 3).tolist(), cameras.prompt.tolist(), strict=True))
            return super().gradient(images, cameras, progress, generator)

    request = small_request(8, batch_size=2).replace(cameras=cameras).validated()
    optimize(request, tmp_path, Watch(), CPU, lambda _: None, lambda: False)
    assert set(seen) == {0.0, 70.0}
    assert asked == {(0.0, 0), (70.0, 1)}


def at(number: int, **spoiled: Any) -> Spoil:
    """Put something wrong into the result of one call."""
    return lambda call, result: dataclasses.replace(result, **spoiled) if call == number else result


@pytest.mark.parametrize(
    "spoiled",
    [{"loss": float("nan")}, {"loss": float("inf")}, {"gradient": torch.full((1, 3, 24, 24), float("nan"))}],
    ids=["loss nan", "loss inf", "gradient"],
)
def test_nan_goes_back_to_the_last_regular_checkpoint_once(tmp_path: Path, spoiled: dict[str, Any]) -> None:
    field, _, metrics, events = run(small_request(25), tmp_path, at(21, **spoiled))
    (text,) = warnings_of(events)
    assert "became nan" in text or "became inf" in text
    assert "Starting again from step 20" in text
    assert metrics["restarts"] == 1
    assert metrics["restart_reason"] == "nan"
    assert metrics["steps"] == 25
    assert all(torch.isfinite(p).all() for p in field.parameters())


def test_nan_before_any_checkpoint_starts_from_the_beginning(tmp_path: Path) -> None:
    *_, metrics, events = run(small_request(25), tmp_path, at(5, loss=float("nan")))
    assert "Starting again from step 0" in warnings_of(events)[0]
    assert metrics["restarts"] == 1


def test_nan_parameters_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.optim.Adam.step
    steps = 0

    def step(self: torch.optim.Adam, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        done = original(self, *arguments)
        if steps == 24:
            with torch.no_grad():
                self.param_groups[0]["params"][0][0] = float("nan")
        return done

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    *_, events = run(small_request(45), tmp_path)
    assert "Starting again from step 20" in warnings_of(events)[0]


def test_nan_twice_is_a_typed_error(tmp_path: Path) -> None:
    def always(call: int, result: GuidanceResult) -> GuidanceResult:
        return dataclasses.replace(result, loss=float("nan")) if call >= 5 else result

    with pytest.raises(DivergedError, match=r"loss became nan.*second time, at step 0; the first: nan"):
        run(small_request(45), tmp_path, always)


def dead(density: float) -> Callable[[Field, Tensor], Tensor]:
    return lambda self, x: torch.full((len(x),), density) + 0.0 * self.grid.sum()


@pytest.mark.parametrize(("density", "name"), [(1e-4, "vanished"), (1e4, "fills all space")])
def test_a_dead_field_is_named_within_60_steps_and_ends_in_a_typed_error(
    tmp_path: Path, density: float, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Field.query
    monkeypatch.setattr(Field, "density", dead(density))
    monkeypatch.setattr(
        Field, "query", lambda self, x: dataclasses.replace(original(self, x), density=dead(density)(self, x))
    )
    events: list[Event] = []
    guidance = SilhouetteGuidance()
    with pytest.raises(DivergedError, match=name):
        optimize(small_request(400), tmp_path, guidance, CPU, events.append, lambda: False)
    (text,) = warnings_of(events)
    assert name in text
    assert "Starting again from step 0 at half the learning rate" in text
    assert guidance.calls == 2 * PATIENCE


def test_a_field_that_the_guidance_destroys_recovers_when_it_relents(tmp_path: Path) -> None:
    class Destroyer(SilhouetteGuidance):
        """Wants nothing but background, until the first restart."""

        def gradient(self, images: Tensor, cameras: Any, progress: float, generator: torch.Generator) -> GuidanceResult:
            wanted = super().gradient(images, cameras, progress, generator)
            if recovered:
                return wanted
            return dataclasses.replace(wanted, gradient=100 * (images - images[:, :, :1, :1]))

    recovered: list[str] = []
    events: list[Event] = []

    def report(event: Event) -> None:
        events.append(event)
        if isinstance(event, Message) and event.level == "warning":
            recovered.append(event.text)

    request = small_request(130, learning_rate=0.05, opacity_weight=1.0, checkpoint_every=50)
    field, occupancy, metrics = optimize(request, tmp_path, Destroyer(), CPU, report, lambda: False)
    assert len(recovered) == 1
    assert "vanished" in recovered[0]
    assert metrics["restart_reason"] == "vanished"
    opacity, _ = render(field, occupancy, [0.0])
    assert opacity.max() > 0.9


def test_a_short_run_that_ends_empty_is_not_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Field.query
    monkeypatch.setattr(
        Field, "query", lambda self, x: dataclasses.replace(original(self, x), density=dead(1e-4)(self, x))
    )
    with pytest.raises(DivergedError, match="vanished"):
        run(small_request(10), tmp_path)


def test_a_restarted_run_resumes_to_the_same_result(tmp_path: Path) -> None:
    whole = run(REQUEST, tmp_path / "whole", at(16, loss=float("nan")))
    folder = tmp_path / "ended"
    with pytest.raises(Cancelled):
        run(REQUEST, folder, stop_at=13)
    with pytest.raises(Killed):
        run(REQUEST, folder, at(3, loss=float("nan")), kill_at=6)
    assert_same(whole, run(REQUEST, folder, at(3, loss=float("nan"))))


def test_losses_are_those_of_the_papers() -> None:
    opacity = torch.tensor([0.0, 0.5, 1.0])
    assert losses.opacity_loss(opacity) == pytest.approx(float(np.mean(np.sqrt(np.array([0, 0.25, 1]) + 0.01))))
    assert losses.entropy_loss(torch.tensor([0.5])) == pytest.approx(1.0)
    assert losses.entropy_loss(torch.tensor([0.0, 1.0, 1.0 + 1e-6])) == pytest.approx(0.0, abs=1e-3)
    edge = torch.tensor([0.0, 1.0], requires_grad=True)
    losses.entropy_loss(edge).backward()
    assert edge.grad is not None
    assert torch.isfinite(edge.grad).all()


def test_files_left_by_a_run(tmp_path: Path) -> None:
    run(small_request(21), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, NEWEST, "preview.png"]
