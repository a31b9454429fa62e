"""The pictures themselves as losses: colour, mask, depth and normals of the views they are seen from.

Each step casts a square of rays, one in each cell of a grid over the picture, at a random pixel of the cell and a
random place in the pixel: the picture is covered evenly, nothing is tied to its raster, and the cost does not depend on
its resolution, which grows as the field's does. Surfaces are shown by their albedo: a picture's light stays in its
colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..cameras import CameraBatch, joined, rays_through
from ..picture import Reference
from ..reference import ReferenceSettings
from ..reference_files import ReferenceView
from ..rendering import Renderer, RenderOutput, Shading, Shot, linear_to_srgb, srgb_to_linear

GROWN_AT = 0.5
"""Share of the run from which the pictures have their full resolution."""
MOST_AT_ONCE = 8
"""Pictures a step looks at; of more, some are drawn."""
_FAINT = 1e-3
_NEAREST = 0.05
"""Radii; what is nearer to a camera is taken to be so far."""


@dataclass(frozen=True)
class Targets:
    """K pictures of one size, S × S pixels in one row; float32."""

    size: int
    colour: Tensor
    """[K, S², 3], linear, times opacity."""
    opacity: Tensor
    """[K, S²], NaN where it is unknown."""
    depth: Tensor | None
    """[K, S²], NaN where it is unknown, of mean 0 and variance 1 unless it is metric; None if no picture has any."""
    normal: Tensor | None
    """[K, S², 3], unit, in world axes; 0 where it is unknown; None if no picture has any."""
    disparity: Tensor
    """[K], whether the depth is disparity's negative."""
    metric: bool
    """Whether all depth is in radii, from the camera."""


@dataclass(frozen=True)
class Aim:
    """What one step looks at of k pictures: a square of g × g rays each."""

    shot: Shot
    cameras: CameraBatch
    """k of them."""
    seen: Targets
    """Of the rays' pixels."""
    weights: Tensor
    """[k]."""
    cosine: Tensor
    """[k, g²], of the angles between the rays and their cameras' axes."""
    ramp: float
    """Share of their weight that depth and normals have."""


@dataclass(frozen=True)
class Look:
    """What one step saw of k pictures, by a square of g × g rays each."""

    loss: Tensor
    """The weighted sum of all losses."""
    error: float
    """Mean squared error of the colours, sRGB."""
    output: RenderOutput
    """[k, g²]."""
    cameras: CameraBatch
    """k of them."""

    @property
    def opacity(self) -> Tensor:
        """[k, g, g]."""
        side = math.isqrt(self.output.opacity.shape[1])
        return self.output.opacity.view(-1, side, side)


class ReferenceViews:
    """The pictures of a run.

    ``lasting``, of sketches: the loop holds on to them to its end, and what they leave open is meant to be.
    """

    def __init__(
        self,
        views: Sequence[ReferenceView],
        settings: ReferenceSettings,
        device: torch.device,
        lasting: bool = False,
    ) -> None:
        self.settings, self.lasting = settings, lasting
        self.cameras = joined([view.camera for view in views])
        weights = torch.tensor([view.weight for view in views], device=device)
        self.weights = weights / weights.mean()
        per_size = zip(*(view.sizes for view in views), strict=True)
        self.targets = [_targets(size, self.cameras, device) for size in per_size]
        forward = -self.cameras.camera_to_world[:, :3, 2]
        self._forward = torch.from_numpy(np.ascontiguousarray(forward)).to(device)

    def is_due(self, step: int) -> bool:
        """Whether a step that may do without looks at the pictures."""
        return step % self.settings.interval == 0

    def aim(self, progress: float, rng: np.random.Generator, *, want_normals: bool = False) -> Aim:
        """Draw rays of some of the pictures; ``progress`` in [0, 1] is the share of the run done."""
        targets = self.targets[self._size_at(progress)]
        chosen = np.sort(rng.permutation(len(self.weights))[:MOST_AT_ONCE])
        side = max(4, round(self.settings.rays / math.sqrt(len(chosen))))
        pixels, points = draw_rays(len(chosen), side, targets.size, self.settings.jitter, rng)
        cameras = CameraBatch(
            self.cameras.camera_to_world[chosen], self.cameras.focal[chosen], self.cameras.center[chosen]
        )
        origins, directions = rays_through(cameras, points)
        device = self.weights.device
        background = srgb_to_linear(torch.tensor(rng.random(3), dtype=torch.float32, device=device))
        ramp = min(1.0, progress / self.settings.ramp) if self.settings.ramp else 1.0
        normals = targets.normal is not None and self.settings.normal_weight * ramp > 0
        place = torch.from_numpy(chosen).to(device)
        return Aim(
            Shot(origins, directions, Shading("albedo"), background, want_normals or normals),
            cameras,
            _gathered(targets, place, torch.from_numpy(pixels).to(device)),
            self.weights[place],
            (torch.from_numpy(directions).to(device) * self._forward[place][:, None]).sum(-1),
            ramp,
        )

    def judge(self, aim: Aim, output: RenderOutput) -> Look:
        """Compare what was rendered of an aim's shot with the pictures."""
        settings, seen, ramp = self.settings, aim.seen, aim.ramp
        known = (~seen.opacity.isnan()).float()
        opacity = seen.opacity.nan_to_num(0.0)
        wanted = linear_to_srgb(seen.colour + (1.0 - opacity)[..., None] * aim.shot.background)
        colour = ((linear_to_srgb(output.rgb) - wanted).square().mean(2) * known).mean(1)
        by_entropy = settings.mask_loss == "entropy"
        off = mask_divergence(output.opacity, opacity) if by_entropy else (output.opacity - opacity).square()
        mask = (off * known).mean(1)
        loss = settings.colour_weight * colour + settings.mask_weight * mask
        if seen.depth is not None and settings.depth_weight * ramp > 0:
            depth = as_seen(output.depth * aim.cosine, seen.disparity)
            compare = place_loss if seen.metric else depth_loss
            loss = loss + settings.depth_weight * ramp * compare(depth, seen.depth, output.opacity)
        if seen.normal is not None and output.normal is not None and settings.normal_weight * ramp > 0:
            loss = loss + settings.normal_weight * ramp * normal_loss(output.normal, seen.normal)
        error = float((aim.weights * colour).detach().mean())
        return Look((aim.weights * loss).mean(), error, output, aim.cameras)

    def _size_at(self, progress: float) -> int:
        steps = len(self.targets)
        return min(int(progress / GROWN_AT * (steps - 1)), steps - 1)

    @torch.no_grad()
    def measure(self, renderer: Renderer) -> list[dict[str, float]]:
        """PSNR (dB, sRGB before white) and overlap of the masks of every picture, at full resolution."""
        targets, found = self.targets[-1], list[dict[str, float]]()
        white = torch.ones(3, device=self.weights.device)
        for index in range(len(self.weights)):
            camera = self.cameras[index : index + 1]
            size = targets.size
            output = renderer.render(camera, size, size, shading=Shading("albedo"), background=white, rng=None)
            wanted = linear_to_srgb(targets.colour[index] + (1.0 - targets.opacity[index])[..., None] * white)
            error = float((linear_to_srgb(output.rgb).view(-1, 3).clamp(0, 1) - wanted).square().mean())
            here, there = output.opacity.view(-1) > 0.5, targets.opacity[index] > 0.5
            overlap = float((here & there).sum()) / max(1.0, float((here | there).sum()))
            found.append({"psnr": round(-10.0 * math.log10(max(error, 1e-10)), 3), "mask_iou": round(overlap, 4)})
        return found


def draw_rays(
    count: int, side: int, size: int, jitter: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """A pixel in each cell of a ``side`` × ``side`` grid over each of ``count`` pictures of ``size`` × ``size`` pixels.

    Flat indices [count, side²] and points [count, side², 2] in ndc, off the pixels' middles by at most ``jitter``
    pixels along each axis.
    """
    cell = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="xy"), axis=-1)
    place = (cell + rng.random((count, side, side, 2))) / side * size
    pixel = np.minimum(place.astype(np.int64), size - 1).reshape(count, -1, 2)
    point = (pixel + 0.5 + rng.uniform(-jitter, jitter, pixel.shape)) / size * 2.0 - 1.0
    return pixel[..., 1] * size + pixel[..., 0], point * np.array([1.0, -1.0])


def mask_divergence(opacity: Tensor, target: Tensor) -> Tensor:
    """Half the cross-entropy of opacities [...] beside ``target`` [...], less its own: 0 where both are the same.

    The square's gradient fades where a ray is nearly as it should be, and a fog remains that the square hardly sees;
    this one's does not (NeuS, arXiv 2106.10689, compares masks so). At an opacity of 0.5 both are as steep.
    """
    own, other = (each.clamp(_FAINT, 1 - _FAINT) for each in (opacity, target))
    both = F.binary_cross_entropy(own, other, reduction="none")
    return 0.5 * (both - F.binary_cross_entropy(other, other, reduction="none"))


def as_seen(depth: Tensor, disparity: Tensor) -> Tensor:
    """Depths [k, N] as the pictures tell them: −1/depth where they tell disparity [k]."""
    return torch.where(disparity[:, None], -1.0 / depth.clamp_min(_NEAREST), depth)


def depth_loss(depth: Tensor, target: Tensor, opacity: Tensor) -> Tensor:
    """1 − Pearson's correlation of depths [k, N] along the camera's axis with ``target`` [k, N], NaN where unknown.

    Blind to scale and shift (as in stable-dreamfusion); [k]. Rays count by what they meet, without a gradient there.
    """
    known = ~torch.isnan(target)
    weight = known * opacity.detach()
    total = weight.sum(1, keepdim=True).clamp_min(1e-6)
    x, y = depth, torch.where(known, target, 0.0)
    x = x - (weight * x).sum(1, keepdim=True) / total
    y = y - (weight * y).sum(1, keepdim=True) / total
    both, own, other = ((weight * each).sum(1, keepdim=True) / total for each in (x * y, x * x, y * y))
    correlation = (both / (own * other + 1e-10).sqrt())[:, 0]
    return (1.0 - correlation) * (known.sum(1) > 0)


def place_loss(depth: Tensor, target: Tensor, opacity: Tensor) -> Tensor:
    """Mean absolute error, in radii, of depths [k, N] beside ``target`` [k, N], NaN where unknown; [k].

    Rays count by what they meet, without a gradient there.
    """
    known = ~torch.isnan(target)
    weight = known * opacity.detach()
    off = (depth - torch.where(known, target, depth.detach())).abs()
    return (weight * off).sum(1) / weight.sum(1).clamp_min(1.0)


def normal_loss(normal: Tensor, target: Tensor) -> Tensor:
    """1 − cosine of normals [k, N, 3] (times opacity, as rendered) to unit ``target``, 0 where unknown; [k], mean."""
    known = target.square().sum(-1) > 0.5
    length = (normal.square().sum(-1) + _FAINT**2).sqrt()
    cosine = (normal * target).sum(-1) / length
    weight = known * length.detach().clamp(max=1.0)
    return (weight * (1.0 - cosine)).sum(1) / weight.sum(1).clamp_min(1.0)


def _targets(views: Sequence[Reference], cameras: CameraBatch, device: torch.device) -> Targets:
    size = len(views[0].rgba)
    rgba = torch.from_numpy(np.stack([view.rgba for view in views])).to(device).reshape(len(views), -1, 4)
    depth = normal = None
    if any(view.depth is not None for view in views):
        maps = [_known_depth(view, size) for view in views]
        depth = torch.from_numpy(np.stack(maps)).to(device)
    if any(view.normals is not None for view in views):
        none = np.zeros((size, size, 3), np.float32)
        own = np.stack([none if view.normals is None else view.normals for view in views]).reshape(len(views), -1, 3)
        world = own @ cameras.camera_to_world[:, :3, :3].transpose(0, 2, 1)
        normal = torch.from_numpy(np.ascontiguousarray(world, np.float32)).to(device)
    opacity = rgba[..., 3].contiguous()
    colour = srgb_to_linear(rgba[..., :3]) * opacity.nan_to_num(0.0)[..., None]
    kinds = [view.depth_kind for view in views]
    disparity = torch.tensor([kind == "disparity" for kind in kinds], device=device)
    return Targets(size, colour, opacity, depth, normal, disparity, all(kind == "metric" for kind in kinds))


def _known_depth(view: Reference, size: int) -> NDArray[np.float32]:
    """[S²] float32, NaN where it is unknown; of mean 0 and variance 1 unless it is metric."""
    if view.depth is None:
        return np.full(size * size, np.nan, np.float32)
    values = view.depth.reshape(-1).astype(np.float64)
    if view.depth_kind == "metric" or not np.isfinite(values).any():
        return values.astype(np.float32)
    spread = np.nanstd(values)
    return ((values - np.nanmean(values)) / (spread if spread > 0 else 1.0)).astype(np.float32)


def _gathered(targets: Targets, chosen: Tensor, pixels: Tensor) -> Targets:
    """What ``pixels`` [k, N] of the ``chosen`` [k] pictures are."""
    rows = chosen[:, None]
    return Targets(
        targets.size,
        targets.colour[rows, pixels],
        targets.opacity[rows, pixels],
        None if targets.depth is None else targets.depth[rows, pixels],
        None if targets.normal is None else targets.normal[rows, pixels],
        targets.disparity[chosen],
        targets.metric,
    )
