"""The loop: render, ask the guidance, step the field. Checkpoints, health and the one restart are here as well.

Where there are pictures of the object, they are losses of their own (see :mod:`.reference_loss`), beside a guidance or
without one; so are, at the beginning, a guidance's own sketches (see :mod:`.sketches`). Where the guidance can paint,
the run has a second part (see :mod:`.refine`).

A run is a function of its request: one killed at any step and resumed goes on to the same result, bit for bit on a CPU.
Where a field dies (see :mod:`..health`), the run starts again once, at half the learning rate and with generators
seeded anew: after NaN from the last regular checkpoint, because the field was still good; after a vanished or exploded
field from the beginning, because checkpoints on the way there lead there again, and after a vanished one without the
losses that thin the field. Only regular checkpoints (at fixed steps) count for this, so that where a person stopped the
run does not change the result. If the restarted run dies too, DivergedError says so.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import schedules
from ..cameras import CameraBatch, rays, sample_fixed, sample_orbit
from ..checkpoint import CheckpointStore
from ..errors import Cancelled, DivergedError, RequestError
from ..events import Event, Message, Phase, Preview, Progress
from ..field import Field
from ..files import write_atomically
from ..guidance import Guidance, GuidanceResult, painter, spared, together
from ..health import Unhealthy, check_number, check_parameters, look, shell_is_full
from ..reference_files import ReferenceView
from ..rendering import OccupancyGrid, Renderer, RenderOutput, Shading, linear_to_srgb, sample_light, srgb_to_linear
from ..request import Request
from . import dents
from .losses import regulariser
from .preview import preview_cameras, preview_png, render_preview
from .reference_loss import Look, ReferenceViews
from .refine import painting_error, rates, strength, turn
from .sketches import sketched
from .state import RunState

MAX_RESTARTS = 1
_CHECK_PARAMETERS_EVERY = 10
_REPORT_SECONDS = 0.2
_NORMAL_WEIGHT = 1e-2
"""Ten times a picture's: shapes come out no worse by it, and a third of the normals and more is saved."""
_PREVIEW_SECONDS = 3.0
_PREVIEW_LIMIT = 5.0
"""Previews come after so many seconds, and before a step that would make it more than the limit; they draw no random
numbers, so this changes nothing else."""


def optimize(
    request: Request,
    folder: Path,
    guidance: Guidance | None,
    device: torch.device,
    report: Callable[[Event], None],
    should_stop: Callable[[], bool],
    references: Sequence[ReferenceView] = (),
) -> tuple[Field, OccupancyGrid, dict[str, Any]]:
    """Optimize a field for a request, going on from the checkpoint in ``folder`` if there is one.

    ``references`` are the request's pictures; with them the guidance may be None. Returns the field, its occupancy and
    numbers for metrics.json. ``should_stop`` is asked before each step. Raises Cancelled when it says so (after a
    checkpoint), DivergedError, and OutputError if the folder cannot be written or holds another request's checkpoint.
    """
    pictures = ReferenceViews(references, request.reference, device) if references else None
    if guidance is None and pictures is None:
        raise RequestError("There is nothing to go by: no model and no picture.", "Choose a model or give a picture.")
    started = time.perf_counter()
    sketches = sketched(request, folder, guidance, device, report, should_stop, references)
    sketching = time.perf_counter() - started
    loop = _Loop(request, folder, guidance, pictures, sketches, device, report)
    loop.state.tally.sketching += sketching
    while True:
        try:
            loop.run(should_stop)
            metrics = loop.state.metrics()
            if pictures is not None:
                metrics["references"] = pictures.measure(loop.renderer)
            return loop.state.field, loop.state.occupancy, metrics
        except Unhealthy as error:
            loop.recover(error)


@dataclass(frozen=True)
class _Views:
    """Views that the guidance has judged."""

    output: RenderOutput
    cameras: CameraBatch
    images: Tensor
    result: GuidanceResult


class _Loop:
    def __init__(
        self,
        request: Request,
        folder: Path,
        guidance: Guidance | None,
        pictures: ReferenceViews | None,
        sketches: Sequence[ReferenceViews],
        device: torch.device,
        report: Callable[[Event], None],
    ) -> None:
        self.request, self.settings, self.folder = request, request.optimize, folder
        self.guidance = guidance
        self.painter = painter(guidance)
        self.pictures = () if pictures is None else (pictures,)
        self.sketches = sketches
        self.lasting = tuple(views for views in sketches if views.lasting)
        self.fills_dents = self.settings.dent_weight > 0 and not self.lasting
        self.device, self.report = device, report
        self.store = CheckpointStore(folder, request.digest())
        self.saved_at, self.reported = -1, 0.0
        self.recent: deque[float] = deque(maxlen=50)
        self.white_share = request.view_guidance.white_share if request.shows_pictures else 0.0
        self.steps = request.optimize.iterations + (request.refine.iterations if self.painter is not None else 0)
        self.previewed = time.perf_counter()
        self._adopt(RunState.fresh(request, device))
        self._resume()

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Step to the end; raises Unhealthy."""
        tally, settings = self.state.tally, self.settings
        self.report(Phase("optimize", f"Optimizing for {self.steps} steps."))
        if not self.pictures:  # those are shown first; and the first step may compile kernels for a while
            self._preview()
        while tally.step < self.steps:
            if should_stop():
                self._save(regular=False)
                raise Cancelled(
                    f"Stopped after step {tally.step}.", "The same request in the same folder goes on from it."
                )
            started = time.perf_counter()
            if not self._made(tally.step):
                continue
            tally.step += 1
            self._time(time.perf_counter() - started)
            at_end = tally.step == self.steps
            if at_end or self._is_overdue() or tally.step % settings.preview_every == 0:
                self._preview()
            if at_end:
                self._check_result()
            if at_end or tally.step % settings.checkpoint_every == 0:
                self._save(regular=True)

    def recover(self, error: Unhealthy) -> None:
        """Start again, once, from a safe state; raises DivergedError the second time."""
        tally = self.state.tally
        if tally.restarts >= MAX_RESTARTS:
            raise DivergedError(
                f"{error} It was the second time, at step {tally.step}; the first: {tally.reason}.",
                "Lower the learning rate or the guidance scale, or try another seed.",
            ) from None
        safe = self.store.load_regular() if error.reason == "nan" else None
        fresh = RunState.fresh(self.request, self.device, tally.restarts + 1)
        fresh.tally.seconds, fresh.tally.sketching, fresh.tally.reason = tally.seconds, tally.sketching, error.reason
        if safe is not None:
            fresh.unpack_field(safe)
            fresh.tally.step = safe.values["tally"]["step"]
        self._adopt(fresh)
        self.saved_at = -1
        text = f"{error} Starting again from step {fresh.tally.step} at half the learning rate."
        self.report(Message("warning", text))

    def _adopt(self, state: RunState) -> None:
        self.state = state
        self.renderer = Renderer(state.field, state.occupancy, self.settings.samples_per_ray, _NORMAL_WEIGHT)
        self._set_levels(state.tally.step)

    def _resume(self) -> None:
        def warn(text: str) -> None:
            self.report(Message("warning", text))

        checkpoint = self.store.load(warn)
        if checkpoint is None:
            return
        state = self.state
        if checkpoint.values["tally"]["restarts"]:
            state = RunState.fresh(self.request, self.device, checkpoint.values["tally"]["restarts"])
        if not state.unpack(checkpoint):
            warn("The checkpoint is from another kind of device; the result will differ a little from a run on one.")
        self._adopt(state)
        self.saved_at = state.tally.step
        self.report(Message("info", f"Going on from step {state.tally.step}."))

    def _step(self, step: int) -> None:
        state = self.state
        self._set_levels(step)
        self.renderer.samples_per_ray = schedules.samples_per_ray(step, self.settings)
        self._set_learning_rate(step)
        state.occupancy.update(state.field.density, step, state.rng)
        known = self._look(step)
        alone = self.request.reference.alone and step < self.settings.iterations  # paintings are looked at in turn
        views = None if known is not None and alone else self._ask(step)
        if views is not None:
            output, cameras, opacity = views.output, views.cameras, views.output.opacity
        else:
            assert known is not None
            output, cameras, opacity = known.output, known.cameras, known.opacity
        state.health.observe(opacity, cameras, state.field.density)
        norm = self._descend(step, output, views, known)
        if step % _CHECK_PARAMETERS_EVERY == 0:
            check_parameters(state.parameters)
        samples = sum(each.output.n_samples for each in (views, known) if each is not None)
        error = None if known is None else known.error
        state.tally.average(self._loss(views, known), float(opacity.detach().mean()), samples, norm, error)

    def _made(self, step: int) -> bool:
        """Make a step; where the device's memory runs out, the guidance makes do with less, and it is made again."""
        try:
            self._step(step)
        except torch.OutOfMemoryError as error:
            said = spared(self.guidance, error)
            self.report(Message("warning", f"{said} Nothing is lost: step {step} is made again."))
            return False
        return True

    def _loss(self, views: _Views | None, known: Look | None) -> float | None:
        """What people are shown: the guidance's loss, or, without a guidance, the pictures'."""
        if views is not None:
            return views.result.loss
        return float(known.loss.detach()) if known is not None and self.guidance is None else None

    def _look(self, step: int) -> Look | None:
        """At the pictures, where it is their turn, and at the sketches while they count.

        Some of these last to the end. Without a guidance all have a turn, and its other losses.
        """
        done, known = schedules.progress(step, self.settings.iterations), None
        for pictures in (*self.pictures, *(self.sketches if done < self.request.sketch.share else self.lasting)):
            if not (self.guidance is None or pictures.is_due(step)):
                continue
            seen = pictures.look(done, self.renderer, self.state.rng, want_normals=self.guidance is None)
            check_number(float(seen.loss.detach()), "pictures' loss")
            known = seen if known is None else dataclasses.replace(known, loss=known.loss + seen.loss)
        return known

    def _ask(self, step: int) -> _Views | None:
        """The guidance about views drawn at random; None without a guidance."""
        if self.guidance is None:
            return None
        if step >= self.settings.iterations:
            return self._fit(step - self.settings.iterations)
        cameras = self._cameras(self.settings.batch_size, step)
        output = self._render(step, cameras)
        images = linear_to_srgb(output.rgb).permute(0, 3, 1, 2)
        done = schedules.progress(step, self.settings.iterations)
        result = self.guidance.gradient(images.detach(), cameras, done, self.state.generator)
        check_number(result.loss, "guidance's loss")
        return _Views(output, cameras, images, result)

    def _fit(self, step: int) -> _Views:
        """Views beside what the guidance made of them, at a step of the second part."""
        assert self.painter is not None
        state, settings = self.state, self.request.refine
        paintings, now = state.paintings, turn(step, self.settings.batch_size, settings, together(self.painter))
        if now.begins:
            paintings.aim(self._cameras(settings.views, self.settings.iterations), state.rng, self.white_share)
        if now.painted:
            with torch.no_grad():
                _, cameras, images = self._unlit(now.painted)
            share = strength(schedules.progress(step, settings.iterations), settings)
            painted = self.painter.repaint(images, cameras, share, settings, state.generator)
            check_number(float(painted.mean()), "painting")
            paintings.keep(now.painted, painted)
        output, cameras, images = self._unlit(now.slots)
        gradient, loss = painting_error(images, paintings.shown(now.slots))
        check_number(loss, "paintings' loss")
        return _Views(output, cameras, images, GuidanceResult(gradient, loss))

    def _unlit(self, slots: list[int]) -> tuple[RenderOutput, CameraBatch, Tensor]:
        """The field as paintings are fitted, from their cameras and before their backgrounds; also in sRGB."""
        state, side = self.state, self.settings.resolution
        cameras = state.paintings.cameras(slots)
        background = srgb_to_linear(state.paintings.backgrounds[slots])[:, None, None].expand(-1, side, side, -1)
        shading = Shading("albedo", None, schedules.AMBIENT, schedules.DIFFUSE)
        output = self.renderer.render(cameras, side, side, shading=shading, background=background, rng=state.rng)
        return output, cameras, linear_to_srgb(output.rgb).permute(0, 3, 1, 2)

    def _set_learning_rate(self, step: int) -> None:
        state, fitting = self.state, step - self.settings.iterations
        if fitting < 0 or self.painter is None:
            state.set_learning_rate(schedules.learning_rate_factor(step, self.settings))
            return
        if fitting == 0:  # what Adam knows is the size of another loss's gradients
            state.adam.state.clear()
        done = schedules.progress(fitting, self.request.refine.iterations)
        state.set_learning_rate(*rates(done, self.request.refine, self.settings.learning_rate))

    def _set_levels(self, step: int) -> None:
        settings = self.settings
        self.state.field.active_levels = schedules.active_levels(step, settings.iterations, settings.grid_levels)

    def _cameras(self, count: int, step: int) -> CameraBatch:
        request, rng = self.request, self.state.rng
        if request.cameras:
            return sample_fixed(request.cameras, count, rng)
        return sample_orbit(schedules.orbit(step, self.request), count, rng)

    def _render(self, step: int, cameras: CameraBatch) -> RenderOutput:
        rng, side = self.state.rng, schedules.resolution(step, self.settings)
        mode = schedules.shading_mode(step, self.settings, rng)
        light = sample_light(cameras, rng)
        shading = Shading(mode, light, schedules.AMBIENT, schedules.DIFFUSE)
        background = self._background(cameras, side)
        return self.renderer.render(cameras, side, side, shading=shading, background=background, rng=rng)

    def _background(self, cameras: CameraBatch, side: int) -> Tensor:
        """One random colour (uniform in sRGB, as people see), white, or the learned background; linear."""
        colour, learned = self.state.rng.random(3), self.state.rng.random()
        if self.white_share and self.state.rng.random() < self.white_share:
            return torch.ones(3, device=self.device)
        if learned >= self.settings.learned_background:
            return srgb_to_linear(torch.tensor(colour, dtype=torch.float32, device=self.device))
        _, directions = rays(cameras, side, side)
        return self.state.background(torch.from_numpy(directions).to(self.device))

    def _descend(self, step: int, output: RenderOutput, views: _Views | None, known: Look | None) -> float:
        """One backward pass through images, pictures and regularisers, then Adam; returns the gradient's norm."""
        state = self.state
        regularisers = regulariser(step, output, self.settings, thin=state.tally.reason != "vanished")
        wanted: list[tuple[Tensor, Tensor | None]] = [(regularisers, None)]
        if views is not None:
            wanted.insert(0, (views.images, views.result.gradient.to(views.images.dtype)))
            wanted.append((self._dents(step, views.cameras, views.output.opacity), None))
        if known is not None:
            wanted.append((known.loss, None))
        roots = [(root, gradient) for root, gradient in wanted if root.requires_grad]
        if not roots:  # no ray met an occupied cell; if that lasts, the field has vanished
            return 0.0
        state.adam.zero_grad(set_to_none=True)
        torch.autograd.backward([root for root, _ in roots], [gradient for _, gradient in roots])
        limit = self.settings.gradient_clip or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(state.parameters, limit))
        check_number(norm, "gradient")
        state.adam.step()
        return norm

    def _dents(self, step: int, cameras: CameraBatch, opacity: Tensor) -> Tensor:
        """The weighted loss of dents; looks for them now and then."""
        settings, state = self.settings, self.state
        if not self.fills_dents:
            return torch.zeros((), device=self.device)
        if schedules.dents_are_watched(step, settings, dents.WINDOW):
            state.dents.see(cameras, opacity, step, state.rng)
        weight = schedules.loss_weights(step, settings).dents
        if not weight:
            return torch.zeros((), device=self.device)
        if step % dents.INTERVAL == 0:
            state.dents.look(state.occupancy, step, settings.iterations)
        return weight * state.dents.loss(state.field, state.rng)

    def _check_result(self) -> None:
        """A short run may end before a dead field has been dead for long enough: look at the whole once more."""
        check_parameters(self.state.parameters)
        empty, full = look(render_preview(self.renderer).opacity, preview_cameras())
        if empty:
            raise Unhealthy("vanished", "The object vanished: at the end of the run all views are empty.")
        if full and shell_is_full(self.state.field.density, self.device):
            raise Unhealthy("exploded", "The object fills all space at the end of the run.")

    def _save(self, *, regular: bool) -> None:
        if self.saved_at == self.state.tally.step and not regular:
            return
        check_parameters(self.state.parameters)
        self.store.save(self.state.pack(regular=regular))
        self.saved_at = self.state.tally.step

    def _is_overdue(self) -> bool:
        """Whether a preview is due, going by how long the last few steps took."""
        passed = time.perf_counter() - self.previewed
        return passed > _PREVIEW_SECONDS or passed + max(list(self.recent)[-3:]) > _PREVIEW_LIMIT

    def _preview(self) -> None:
        self.previewed = time.perf_counter()
        path = self.folder / "preview.png"
        write_atomically(path, preview_png(render_preview(self.renderer)))
        self.report(Preview(str(path), self.state.tally.step))

    def _time(self, seconds: float) -> None:
        tally = self.state.tally
        tally.seconds += seconds
        self.recent.append(seconds)
        now = time.perf_counter()
        if now - self.reported >= _REPORT_SECONDS or tally.step == self.steps:
            self.reported = now
            # The median, because a step now and then compiles a kernel.
            left = (self.steps - tally.step) * statistics.median(self.recent)
            self.report(Progress(tally.step, self.steps, left, tally.loss))
