"""One step of a run: views are drawn, the guidance and the pictures are asked about them, and Adam moves the field.

Where there are pictures of the object, they are losses of their own (see :mod:`.reference_loss`), beside a guidance or
without one; so are, at the beginning, a guidance's own sketches (see :mod:`.sketches`). Where the guidance can paint,
the run has a second part (see :mod:`.refine`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import schedules
from ..cameras import CameraBatch, rays, sample_fixed, sample_orbit
from ..guidance import Guidance, GuidanceResult, painter, together
from ..health import check_number, check_parameters
from ..rendering import Renderer, RenderOutput, Shading, Shot, linear_to_srgb, sample_light, shot_of, srgb_to_linear
from ..request import Request
from . import dents
from .losses import regulariser
from .reference_loss import Aim, Look, ReferenceViews
from .refine import painting_error, rates, strength, turn
from .state import RunState

_CHECK_PARAMETERS_EVERY = 10
_NORMAL_WEIGHT = 1e-2
"""Ten times a picture's: shapes come out no worse by it, and a third of the normals and more is saved."""


@dataclass(frozen=True)
class _Turn:
    """What a step looks at of some pictures, and how much that counts."""

    pictures: ReferenceViews
    aim: Aim
    weight: float


@dataclass(frozen=True)
class _Frame:
    """Views that are to be rendered."""

    shot: Shot
    cameras: CameraBatch
    slots: list[int] | None = None
    """Of the paintings beside which they are put; None: the guidance is asked about them."""


@dataclass(frozen=True)
class _Views:
    """Views that the guidance has judged."""

    output: RenderOutput
    cameras: CameraBatch
    images: Tensor
    result: GuidanceResult


class Stepper:
    """Makes the steps of a run, by its request, guidance, pictures and sketches, on the state that it holds."""

    def __init__(
        self,
        request: Request,
        guidance: Guidance | None,
        pictures: ReferenceViews | None,
        sketches: Sequence[ReferenceViews],
        state: RunState,
    ) -> None:
        self.request, self.settings = request, request.optimize
        self.guidance = guidance
        self.painter = painter(guidance)
        self.pictures = () if pictures is None else (pictures,)
        self.sketches = sketches
        self.lasting = tuple(views for views in sketches if views.lasting)
        self.fills_dents = self.settings.dent_weight > 0 and not self.lasting
        self.white_share = request.view_guidance.white_share if request.shows_pictures else 0.0
        self.adopt(state)

    def adopt(self, state: RunState) -> None:
        """Go on from a state."""
        self.state, self.device = state, state.generator.device
        self.renderer = Renderer(state.field, state.occupancy, self.settings.samples_per_ray, _NORMAL_WEIGHT)
        self._set_levels(state.tally.step)

    @property
    def steps(self) -> int:
        """Of the whole run: distillation, and fitting paintings where the guidance can paint."""
        return self.settings.iterations + (self.request.refine.iterations if self.painter is not None else 0)

    def make(self, step: int) -> None:
        """Make step number ``step``; raises Unhealthy."""
        state = self.state
        self._set_levels(step)
        self.renderer.samples_per_ray = schedules.samples_per_ray(step, self.settings)
        self._set_learning_rate(step)
        state.occupancy.update(state.field.density, step, state.rng)
        known, views = self._seen(step)
        if views is not None:
            output, cameras, opacity = views.output, views.cameras, views.output.opacity
        else:
            assert known is not None
            output, cameras, opacity = known.output, known.cameras, known.opacity
        state.health.observe(opacity, cameras, state.field.density)
        norm = self._descend(step, output, views, known)
        if step % _CHECK_PARAMETERS_EVERY == 0:
            check_parameters(state.parameters)
        error = None if known is None else known.error
        state.tally.average(self._loss(views, known), float(opacity.detach().mean()), output.n_samples, norm, error)

    def _loss(self, views: _Views | None, known: Look | None) -> float | None:
        """What people are shown: the guidance's loss, or, without a guidance, the pictures'."""
        if views is not None:
            return views.result.loss
        return float(known.loss.detach()) if known is not None and self.guidance is None else None

    def _seen(self, step: int) -> tuple[Look | None, _Views | None]:
        """The pictures whose turn it is and views beside them, or these alone: rendered together, and judged."""
        rng = self.state.rng
        aims = self._aims(step)
        alone = self.request.reference.alone and step < self.settings.iterations  # paintings are looked at in turn
        frame = None if aims and alone else self._frame(step)
        shots = [each.aim.shot for each in aims] + ([] if frame is None else [frame.shot])
        outputs = self.renderer.render_together(shots, rng)
        known = None
        for due, output in zip(aims, outputs, strict=False):
            seen = due.pictures.judge(due.aim, output)
            check_number(float(seen.loss.detach()), "pictures' loss")
            before = 0.0 if known is None else known.loss
            known = dataclasses.replace(known or seen, loss=before + due.weight * seen.loss)
        return known, None if frame is None else self._judged(step, frame, outputs[-1])

    def _aims(self, step: int) -> list[_Turn]:
        """At the pictures, where it is their turn, and at the sketches while they count.

        Drawn and foretold ones in turn, for then a step costs less. Some of these last to the end. Without a guidance
        all have a turn, and its other losses.
        """
        done, alone = schedules.progress(step, self.settings.iterations), self.guidance is None
        due = [(pictures, 1.0) for pictures in self.pictures if alone or pictures.is_due(step)]
        if sketches := self.sketches if done < self.request.sketch.share else self.lasting:
            due.append((sketches[step % len(sketches)], float(len(sketches))))
        return [_Turn(each, each.aim(done, self.state.rng, want_normals=alone), weight) for each, weight in due]

    def _frame(self, step: int) -> _Frame | None:
        """Views drawn at random, or in the second part those whose turn it is; None without a guidance."""
        if self.guidance is None:
            return None
        if step >= self.settings.iterations:
            return self._painted(step - self.settings.iterations)
        rng, side = self.state.rng, schedules.resolution(step, self.settings)
        cameras = self._cameras(self.settings.batch_size, step)
        mode = schedules.shading_mode(step, self.settings, rng)
        shading = Shading(mode, sample_light(cameras, rng), schedules.AMBIENT, schedules.DIFFUSE)
        return _Frame(shot_of(cameras, side, side, shading, self._background(cameras, side)), cameras)

    def _painted(self, step: int) -> _Frame:
        """Views at a step of the second part, painted anew where it is their turn."""
        assert self.painter is not None
        state, settings = self.state, self.request.refine
        paintings, now = state.paintings, turn(step, self.settings.batch_size, settings, together(self.painter))
        if now.begins:
            paintings.aim(self._cameras(settings.views, self.settings.iterations), state.rng, self.white_share)
        if now.painted:
            unlit = self._unlit(now.painted)
            with torch.no_grad():
                (output,) = self.renderer.render_together([unlit.shot], state.rng)
            share = strength(schedules.progress(step, settings.iterations), settings)
            painted = self.painter.repaint(_pictures(output), unlit.cameras, share, settings, state.generator)
            check_number(float(painted.mean()), "painting")
            paintings.keep(now.painted, painted)
        return self._unlit(now.slots)

    def _unlit(self, slots: list[int]) -> _Frame:
        """The field as paintings are fitted, from their cameras and before their backgrounds."""
        state, side = self.state, self.settings.resolution
        cameras = state.paintings.cameras(slots)
        background = srgb_to_linear(state.paintings.backgrounds[slots])[:, None, None].expand(-1, side, side, -1)
        shading = Shading("albedo", None, schedules.AMBIENT, schedules.DIFFUSE)
        return _Frame(shot_of(cameras, side, side, shading, background), cameras, slots)

    def _judged(self, step: int, frame: _Frame, output: RenderOutput) -> _Views:
        """Beside the paintings, or by the guidance."""
        images = _pictures(output)
        if frame.slots is not None:
            gradient, loss = painting_error(images, self.state.paintings.shown(frame.slots))
            check_number(loss, "paintings' loss")
            return _Views(output, frame.cameras, images, GuidanceResult(gradient, loss))
        assert self.guidance is not None
        done = schedules.progress(step, self.settings.iterations)
        result = self.guidance.gradient(images.detach(), frame.cameras, done, self.state.generator)
        check_number(result.loss, "guidance's loss")
        return _Views(output, frame.cameras, images, result)

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


def _pictures(output: RenderOutput) -> Tensor:
    """[B, 3, H, W], sRGB."""
    return linear_to_srgb(output.rgb).permute(0, 3, 1, 2)
