"""Pictures of spheres whose silhouette, depth, normals and shading are known in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backend.cameras import CameraBatch, orbit_cameras, rays, sample_orbit
from backend.field import build_field
from backend.rendering import (
    OccupancyGrid,
    Renderer,
    RenderOutput,
    Shading,
    sample_light,
)
from backend.rendering import compiled as compiled_module
from backend.rendering import renderer as renderer_module
from backend.rendering import termination as termination_module
from backend.rendering.composite import transmittance_weights
from backend.rendering.march import RayBundle, march
from backend.request import OptimizeSettings, OrbitRig

BLACK = torch.zeros(3)
BOTH = pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "torch"])


pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Sample:
    density: Tensor
    albedo: Tensor


class Ball(nn.Module):
    """A sphere with a soft skin; counts what it is asked."""

    def __init__(self, radius: float = 0.5, *, density: float = 300.0, sharpness: float = 100.0, center=(0, 0, 0)):
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(radius))
        self.colour = nn.Parameter(torch.tensor([0.8, 0.4, 0.1]))
        self.turn = nn.Parameter(torch.tensor(1.0))
        self.center = torch.tensor(center, dtype=torch.float32)
        self.peak, self.sharpness = density, sharpness
        self.queried: list[int] = []
        self.normals_made = 0

    def density(self, x: Tensor) -> Tensor:
        return self.peak * torch.sigmoid(self.sharpness * (self.radius - (x - self.center).norm(dim=-1)))

    def query(self, x: Tensor) -> Sample:
        self.queried.append(len(x))
        return Sample(self.density(x), self.colour.expand(len(x), 3))

    def normal(self, x: Tensor) -> Tensor:
        self.normals_made += len(x)
        return nn.functional.normalize(x - self.center, dim=-1) * self.turn


def stage(field: Ball, samples_per_ray: int = 128, resolution: int = 32) -> Renderer:
    grid, rng = OccupancyGrid(resolution), np.random.default_rng(0)
    for step in (0, 16, 32):
        grid.update(field.density, step, rng)
    return Renderer(field, grid, samples_per_ray)


def picture(
    renderer: Renderer, cameras: CameraBatch, side: int = 24, shading: Shading | None = None, **options: Any
) -> RenderOutput:
    options = {"background": BLACK, "rng": None, **options}
    return renderer.render(cameras, side, side, shading=shading or Shading(), **options)


def hits(cameras: CameraBatch, side: int, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Closed form: how near each ray passes the origin, the distance to the sphere, and the point hit."""
    origins, directions = rays(cameras, side, side)
    o, d = torch.from_numpy(origins)[:, None, None], torch.from_numpy(directions)
    along = -(o * d).sum(-1)
    miss = (o + along[..., None] * d).norm(dim=-1)
    distance = along - (radius**2 - miss**2).clamp(min=0.0).sqrt()
    return miss, distance, o + distance[..., None] * d


def test_silhouette_and_depth() -> None:
    cameras = orbit_cameras([0.0, 50.0], [0.0, 30.0], 3.0, 30.0)
    out = picture(stage(Ball()), cameras)
    miss, distance, _ = hits(cameras, 24, 0.5)
    assert out.opacity[miss < 0.44].min() > 0.999
    assert out.opacity[miss > 0.58].max() < 0.02
    assert out.opacity.min() >= 0.0 and out.opacity.max() <= 1.0
    inner = miss < 0.4
    torch.testing.assert_close(out.depth[inner], distance[inner], atol=0.03, rtol=0.0)
    assert torch.all(out.depth[miss > 0.7] == 0.0)
    torch.testing.assert_close(
        out.rgb[inner], torch.tensor([0.8, 0.4, 0.1]).expand(int(inner.sum()), 3), atol=1e-3, rtol=0
    )


def test_up_is_up_and_right_is_right() -> None:
    out = picture(stage(Ball(0.2, center=(0.4, 0.0, 0.3))), orbit_cameras(0.0, 0.0, 3.0, 40.0))
    rows, columns = (out.opacity[0] > 0.5).nonzero(as_tuple=True)
    assert rows.max() < 12 <= columns.min()


def test_normals_are_those_of_the_sphere() -> None:
    cameras = orbit_cameras([0.0, -110.0], [10.0, 40.0], 3.0, 30.0)
    out = picture(stage(Ball()), cameras, want_normals=True)
    assert out.normal is not None
    miss, _, point = hits(cameras, 24, 0.5)
    inner = miss < 0.4
    torch.testing.assert_close(out.normal[inner], (point / 0.5)[inner], atol=0.05, rtol=0.0)
    coloured = picture(stage(Ball()), cameras, shading=Shading("normal"))
    torch.testing.assert_close(coloured.rgb[inner], out.normal[inner] / 2 + 0.5, atol=2e-3, rtol=0.0)
    assert picture(stage(Ball()), cameras).normal is None


@pytest.mark.parametrize("mode", ["lambertian", "textureless"])
def test_shading_is_lambert(mode) -> None:
    cameras = orbit_cameras([0.0, 80.0], [0.0, 20.0], 3.0, 30.0)
    light = torch.tensor([[2.0, -1.0, 1.5], [0.0, 0.0, 3.0]])
    out = picture(stage(Ball()), cameras, shading=Shading(mode, light, ambient=0.2, diffuse=0.7))
    miss, _, point = hits(cameras, 24, 0.5)
    to_light = nn.functional.normalize(light[:, None, None] - point, dim=-1)
    brightness = 0.2 + 0.7 * (to_light * point / 0.5).sum(-1).clamp(min=0.0)
    albedo = torch.ones(3) if mode == "textureless" else torch.tensor([0.8, 0.4, 0.1])
    inner = miss < 0.4
    torch.testing.assert_close(out.rgb[inner], (brightness[..., None] * albedo)[inner], atol=0.03, rtol=0.0)
    assert brightness[inner].min() == pytest.approx(0.2) and brightness[inner].max() > 0.7


def test_no_light_means_light_at_the_camera() -> None:
    cameras = orbit_cameras([15.0, 90.0], 30.0, 3.0, 30.0)
    renderer = stage(Ball())
    expected = picture(renderer, cameras, shading=Shading("lambertian", torch.from_numpy(cameras.position)))
    torch.testing.assert_close(picture(renderer, cameras, shading=Shading("lambertian")).rgb, expected.rgb)


def test_textureless_shapes_get_no_colour_gradient() -> None:
    field = Ball()
    renderer, cameras = stage(field), orbit_cameras(0.0, 0.0, 3.0, 30.0)
    picture(renderer, cameras, shading=Shading("textureless")).rgb.mean().backward()
    assert field.colour.grad is None and field.radius.grad is not None and field.radius.grad > 0
    picture(renderer, cameras, shading=Shading("lambertian")).rgb.mean().backward()
    assert field.colour.grad is not None and torch.all(field.colour.grad > 0)


def test_backgrounds() -> None:
    cameras = orbit_cameras([0.0, 90.0], 0.0, 3.0, 30.0)
    renderer = stage(Ball())
    black = picture(renderer, cameras)
    colour = torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(
        picture(renderer, cameras, background=colour).rgb, black.rgb + (1 - black.opacity)[..., None] * colour
    )
    sky = torch.rand(2, 24, 24, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    out = picture(renderer, cameras, background=sky)
    torch.testing.assert_close(out.rgb, black.rgb + (1 - black.opacity)[..., None] * sky)
    out.rgb.sum().backward()
    torch.testing.assert_close(sky.grad, (1 - black.opacity.detach())[..., None].expand_as(sky))


def test_an_empty_grid_shows_the_background_and_trains_on() -> None:
    field = Ball()
    renderer = Renderer(field, OccupancyGrid(8), 16)
    renderer.occupancy.update(lambda x: torch.zeros(len(x)), 0, np.random.default_rng(0))
    out = picture(renderer, orbit_cameras(0.0, 0.0, 3.0, 30.0), shading=Shading("lambertian"), background=torch.ones(3))
    assert torch.all(out.rgb == 1.0) and torch.all(out.opacity == 0.0) and out.n_samples == 0
    (out.rgb.sum() + out.orientation_loss + out.depth.sum()).backward()
    assert field.radius.grad is None or field.radius.grad == 0.0


def test_both_engines_give_the_same_picture_and_gradient() -> None:
    cameras = orbit_cameras([0.0, 140.0], 20.0, 3.0, 40.0)
    light = torch.tensor([[1.0, -2.0, 2.0], [0.0, 3.0, 1.0]])
    results = []
    for kernels in (compiled_module.kernels, None):
        field = Ball(sharpness=20.0, density=30.0)
        renderer = stage(field, 64)
        with mock.patch.object(compiled_module, "kernels", kernels):
            out = picture(renderer, cameras, shading=Shading("lambertian", light), rng=np.random.default_rng(4))
            (out.rgb.square().sum() + out.depth.sum() + out.orientation_loss).backward()
        assert out.normal is not None
        results.append(
            [out.rgb, out.depth, out.opacity, out.normal, out.orientation_loss, field.radius.grad, field.colour.grad]
        )
    assert compiled_module.kernels is not None
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, atol=2e-5, rtol=1e-4)


def test_gradients_are_those_of_differences() -> None:
    cameras = orbit_cameras(30.0, 10.0, 3.0, 30.0)
    target = torch.rand(1, 24, 24, 3, generator=torch.Generator().manual_seed(0))

    def loss(field: Ball) -> Tensor:
        renderer = Renderer(field, OccupancyGrid(8), 64, -1.0)  # what is unlit at one radius is lit at another
        shading = Shading("lambertian", torch.tensor([[2.0, -2.0, 1.0]]))
        return (picture(renderer, cameras, shading=shading).rgb - target).square().sum()

    field = Ball(sharpness=20.0, density=20.0)
    loss(field).backward()
    assert field.radius.grad is not None and field.colour.grad is not None
    with torch.no_grad():
        high, low = loss(Ball(0.502, sharpness=20.0, density=20.0)), loss(Ball(0.498, sharpness=20.0, density=20.0))
    assert field.radius.grad.item() == pytest.approx(float(high - low) / 0.004, rel=0.02)


@BOTH
def test_early_termination_changes_nothing_that_is_seen(kernels: bool) -> None:
    cameras = orbit_cameras([0.0, 100.0], [10.0, 50.0], 3.0, 30.0)
    for density in (300.0, 40.0):  # the grid is believed from twice OPAQUE on
        field = Ball(0.6, density=density)
        renderer = stage(field)
        results = []
        for opaque in (1e30, termination_module.OPAQUE):
            field.zero_grad()
            with (
                mock.patch.object(termination_module, "OPAQUE", opaque),
                mock.patch.object(compiled_module, "kernels", compiled_module.kernels if kernels else None),
            ):
                out = picture(renderer, cameras, rng=np.random.default_rng(0), want_normals=True)
                out.rgb.square().sum().backward()
            assert out.normal is not None and field.radius.grad is not None
            results.append((out.rgb, out.depth, out.normal, field.radius.grad.clone(), out.n_samples))
        whole, short = results
        torch.testing.assert_close(short[0], whole[0], atol=2e-4, rtol=0.0)
        torch.testing.assert_close(short[1], whole[1], atol=1e-3, rtol=0.0)
        torch.testing.assert_close(short[2], whole[2], atol=2e-4, rtol=0.0)
        torch.testing.assert_close(short[3], whole[3], atol=1e-3, rtol=1e-3)
        assert short[4] < whole[4] * (0.5 if density > 100.0 else 0.9)


def test_a_stale_grid_hides_nothing() -> None:
    """The grid believes in opaque matter where there is none any more: what is behind must still be seen."""
    field = Ball(0.3, center=(0.0, 0.3, 0.0))
    renderer, cameras = stage(field), orbit_cameras([0.0, 60.0], 10.0, 3.0, 40.0)
    renderer.occupancy.binary.copy_(renderer.occupancy.ball)
    renderer.occupancy.blocks.fill_(True)
    expected = picture(renderer, cameras, want_normals=True)
    renderer.occupancy.core.fill_(1e4)
    out = picture(renderer, cameras, want_normals=True)
    assert expected.opacity.max() > 0.99
    torch.testing.assert_close(out.rgb, expected.rgb, atol=2e-4, rtol=0.0)
    torch.testing.assert_close(out.depth, expected.depth, atol=1e-3, rtol=0.0)
    assert out.normal is not None and expected.normal is not None
    torch.testing.assert_close(out.normal, expected.normal, atol=2e-4, rtol=0.0)


def test_normals_are_made_only_where_they_count() -> None:
    cameras = orbit_cameras(30.0, 10.0, 3.0, 40.0)
    shading = Shading("lambertian", torch.tensor([[3.0, -1.0, 1.0]]))
    for field, share in ((Ball(), 0.5), (Ball(sharpness=8.0, density=10.0), 0.9)):
        renderer = stage(field)
        out = picture(renderer, cameras, shading=shading)
        few, field.normals_made = field.normals_made, 0
        renderer.normal_weight = -1.0
        full = picture(renderer, cameras, shading=shading)
        assert field.normals_made == full.n_samples and few < share * full.n_samples
        assert (out.rgb - full.rgb).abs().max() < 0.015 and (out.rgb - full.rgb).abs().mean() < 1e-3
        assert out.orientation_loss.item() == pytest.approx(full.orientation_loss.item(), rel=0.2, abs=2e-5)


def test_orientation_loss_is_its_formula() -> None:
    field = Ball(sharpness=10.0, density=10.0)
    with torch.no_grad():
        field.turn.fill_(-1.0)
    renderer, cameras = stage(field, 32), orbit_cameras([0.0, 70.0], 10.0, 3.0, 40.0)
    out = picture(renderer, cameras, side=10, want_normals=True)
    origins, directions = rays(cameras, 10, 10)
    bundle = RayBundle(torch.from_numpy(origins).repeat_interleave(100, 0), torch.from_numpy(directions).view(-1, 3))
    samples = march(bundle, renderer.occupancy, 32, None)
    weights = transmittance_weights(field.density(samples.positions), samples.widths, samples.offsets)
    away = (field.normal(samples.positions) * bundle.directions[samples.rays]).sum(-1).clamp(min=0.0)
    kept = weights > 1e-3
    expected = (weights * away.square())[kept].sum() / 200
    assert expected > 0.05
    torch.testing.assert_close(out.orientation_loss, expected)
    out.orientation_loss.backward()
    assert field.radius.grad is None or field.radius.grad == 0.0, "the weights must get no gradient"
    assert field.turn.grad is not None and field.turn.grad < 0.0

    outward = picture(stage(Ball()), cameras, want_normals=True).orientation_loss
    assert outward < 1e-3
    assert picture(stage(Ball()), cameras).orientation_loss == 0.0


def test_large_pictures_without_gradients_are_made_in_pieces() -> None:
    field = Ball()
    renderer, cameras = stage(field), orbit_cameras([0.0, 45.0], 20.0, 3.0, 35.0)
    shading = Shading("lambertian", torch.tensor([[1.0, -3.0, 1.0]] * 2))
    options: dict[str, Any] = {"shading": shading, "background": torch.ones(3)}
    whole = renderer.render(cameras, 40, 56, rng=np.random.default_rng(2), **options)
    field.queried.clear()
    with torch.no_grad(), mock.patch.object(renderer_module, "_CHUNK_SAMPLES", 128 * 500):
        parts = renderer.render(cameras, 40, 56, rng=np.random.default_rng(2), **options)
    assert len(field.queried) >= math.ceil(2 * 40 * 56 / 500) and max(field.queried) <= 128 * 500
    for name in ("rgb", "opacity", "depth", "normal", "orientation_loss"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=1e-6, rtol=1e-5)
    assert parts.n_samples == whole.n_samples and not parts.rgb.requires_grad

    field.queried.clear()
    with torch.no_grad():
        picture(renderer, cameras, side=256)
    assert max(field.queried) <= 1 << 18


def test_seeds_decide() -> None:
    cameras = orbit_cameras(0.0, 0.0, 3.0, 30.0)
    renderer = stage(Ball(), 32)
    one, two, three = (picture(renderer, cameras, rng=np.random.default_rng(s)).rgb for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, three)
    assert torch.equal(picture(renderer, cameras).rgb, picture(renderer, cameras).rgb)


def test_a_batch_is_its_cameras() -> None:
    cameras = orbit_cameras([0.0, 90.0, -120.0], [0.0, 20.0, 80.0], [2.0, 3.0, 4.0], [60.0, 40.0, 30.0])
    light = torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0]])
    renderer = stage(Ball(0.3, center=(0.2, 0.1, -0.3)))
    together = picture(renderer, cameras, shading=Shading("lambertian", light))
    for i in range(3):
        alone = picture(renderer, cameras[i : i + 1], shading=Shading("lambertian", light[i : i + 1]))
        torch.testing.assert_close(together.rgb[i], alone.rgb[0])
        torch.testing.assert_close(together.depth[i], alone.depth[0])


def test_a_camera_inside_the_ball_sees_what_is_ahead() -> None:
    renderer = stage(Ball(0.2, center=(0.0, 0.6, 0.0)))
    near = orbit_cameras(0.0, 0.0, 0.1, 40.0)
    assert picture(renderer, near).opacity[0, 12, 12] > 0.99
    assert picture(renderer, orbit_cameras(180.0, 0.0, 0.1, 40.0)).opacity.max() < 1e-3


@BOTH
def test_the_hash_grid_field_renders_and_learns(kernels: bool) -> None:
    """A few steps towards a red ball: loss falls, gradients are finite, and an empty grid is no accident."""
    settings = OptimizeSettings(grid_levels=4, grid_log2_size=10, grid_finest=32, engine="torch")
    field = build_field(settings, torch.device("cpu"), 0)
    renderer = Renderer(field, OccupancyGrid(16), 32)
    rng = np.random.default_rng(0)
    optimizer = torch.optim.Adam(field.parameter_groups(0.02))
    losses: list[float] = []
    cameras = orbit_cameras(0.0, 0.0, 3.0, 40.0)
    with mock.patch.object(compiled_module, "kernels", compiled_module.kernels if kernels else None):
        for step in range(40):
            renderer.occupancy.update(field.density, step, rng)
            cameras = sample_orbit(OrbitRig(), 1, rng)
            inside = (hits(cameras, 16, 0.75)[0] < 0.75).float()
            out = picture(renderer, cameras, 16, Shading("lambertian", sample_light(cameras, rng)), rng=rng)
            loss = (out.opacity - inside).square().mean() + (out.rgb[..., 1:]).square().mean()
            optimizer.zero_grad()
            (loss + 0.01 * out.orientation_loss).backward()
            assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in field.parameters())
            optimizer.step()
            losses.append(loss.item())
        assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
        renderer.occupancy.binary.zero_()
        renderer.occupancy.blocks.zero_()
        nothing = picture(renderer, cameras, 8, Shading("lambertian"), background=torch.ones(3))
        (nothing.rgb.sum() + nothing.orientation_loss).backward()
        assert nothing.n_samples == 0 and torch.all(nothing.rgb == 1.0)
