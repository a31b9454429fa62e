"""The field: heads, prior, normals, progressive levels, determinism, and that it learns."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.func import functional_call

from backend.errors import SetupError
from backend.field import Blob, Field, FieldConfig, GridLayout, HashGridConfig, build_field, select_engine
from backend.field.heads import Heads, density_covector, unit_normals
from backend.field.layout import Interpolation
from backend.field.prior import Activate
from backend.request import OptimizeSettings

SMALL = OptimizeSettings(grid_levels=4, grid_features=2, grid_log2_size=10, grid_finest=48)


@pytest.fixture(autouse=True)
def _keep_thread_count():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def points(n: int, seed: int = 0, extent: float = 1.0) -> torch.Tensor:
    return (torch.rand(n, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * extent


def lively(field: Field, seed: int = 1, size: float = 1.0) -> Field:
    """The field with a grid that says something."""
    with torch.no_grad():
        field.grid.uniform_(-size, size, generator=torch.Generator().manual_seed(seed))
    return field


def tiny(config: FieldConfig, interpolation: Interpolation = "linear") -> Field:
    """A field in float64 on the reference engine, for gradient checks."""
    layout = GridLayout(HashGridConfig(2, 2, 5, 3, 1.7, interpolation))
    generator = torch.Generator().manual_seed(2)
    return lively(Field(layout, select_engine(layout, "cpu", "torch"), config, generator).double())


def test_build_field_follows_the_settings() -> None:
    field = build_field(SMALL, "cpu", 3)
    assert field.layout.config.n_levels == 4 and field.layout.config.log2_table_size == 10
    assert (field.layout.levels[0].resolution, field.layout.levels[-1].resolution) == (16, 48)
    assert field.engine.name == "numba" and field.active_levels == 4
    assert build_field(OptimizeSettings(grid_levels=3, engine="torch"), "cpu", 3).engine.name == "torch"
    with pytest.raises(SetupError, match="tinycudann does not run on cpu"):
        build_field(OptimizeSettings(engine="tinycudann"), "cpu", 3)


def test_the_seed_decides_the_start() -> None:
    torch.manual_seed(1)
    first = build_field(SMALL, "cpu", 3).state_dict()
    torch.manual_seed(2)
    again, other = build_field(SMALL, "cpu", 3).state_dict(), build_field(SMALL, "cpu", 4).state_dict()
    assert set(first) == {"grid", "hidden_weight", "density_weight", "albedo_weight"}
    for name, value in first.items():
        assert torch.equal(value, again[name]) and not torch.equal(value, other[name])
    assert first["grid"].abs().max() <= 1e-4 and first["grid"].std() > 5e-5


def test_it_starts_as_a_grey_blob_in_empty_space() -> None:
    field = build_field(SMALL, "cpu", 0)
    x = torch.zeros(3, 3)
    x[1, 0], x[2, 1] = 0.5, -1.0
    sample = field.query(x)
    expected = torch.tensor([math.exp(5.0), 1.0, math.exp(-5.0)])
    torch.testing.assert_close(sample.density, expected, rtol=1e-2, atol=0)
    torch.testing.assert_close(sample.albedo, torch.full((3, 3), 0.5), atol=1e-3, rtol=0)
    directions = torch.nn.functional.normalize(points(200), dim=-1)
    assert ((field.normal(0.4 * directions) * directions).sum(-1) > 0.99).all()


def test_blobs_of_the_peers() -> None:
    x = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.0, 0.6, 0.8]])
    gaussian = Blob("gaussian", 5.0, 0.2).value(x)
    torch.testing.assert_close(gaussian, torch.tensor([5.0, 5.0 * math.exp(-0.5), 5.0 * math.exp(-12.5)]))
    torch.testing.assert_close(Blob("linear", 10.0, 0.5).value(x), torch.tensor([10.0, 6.0, -10.0]))
    assert not Blob("none").value(x).any() and not Blob("none").gradient(x).any()


@pytest.mark.parametrize("kind", ["linear", "gaussian"])
def test_blob_gradient(kind) -> None:
    blob, x = Blob(kind, 4.0, 0.4), points(50).double().requires_grad_()
    radius = x.norm(dim=-1)
    value = 4.0 * (1 - radius / 0.4) if kind == "linear" else 4.0 * torch.exp(-(radius**2) / (2 * 0.4**2))
    torch.testing.assert_close(blob.value(x.detach()), value.detach())
    torch.testing.assert_close(blob.gradient(x.detach()), torch.autograd.grad(value.sum(), x)[0])
    assert torch.equal(blob.gradient(torch.zeros(1, 3)), torch.zeros(1, 3))


def reference_heads(encoding, x, hidden, density, albedo, heads):
    """The heads by the book."""
    output = torch.block_diag(density, albedo)
    raw = output @ torch.relu(hidden @ encoding.t())
    offset = raw[0] + heads.blob.value(x) + heads.bias
    density = offset.clamp(-15, 15).exp() if heads.activation == "exp" else torch.nn.functional.softplus(offset)
    return density, torch.sigmoid(raw[1:]).t()


PRECISIONS = {"compiled": torch.float32, "in chunks": torch.float64}
"""What each way of the heads on the CPU is for; by the reference in float64."""
NEAR = {torch.float32: (1e-4, 2e-4), torch.float64: (1e-7, 1e-9)}
"""Relative and absolute."""


def assert_near(ours, theirs, dtype) -> None:
    rtol, atol = NEAR[dtype]
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", PRECISIONS.values(), ids=PRECISIONS.keys())
@pytest.mark.parametrize("activation", ["exp", "softplus"])
@pytest.mark.parametrize("n", [1, 2048, 5001])
def test_heads_equal_whole_matrices(n, activation, dtype) -> None:
    heads = Heads(8, activation, Blob("gaussian", 1.0, 0.4), -0.3)
    generator = torch.Generator().manual_seed(n)
    shapes = ((n, 5), (16, 5), (1, 8), (3, 8))
    leaves = [(0.5 * torch.randn(s, generator=generator, dtype=torch.float64)).requires_grad_() for s in shapes]
    own = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
    x, (encoding, *rest) = points(n).double(), leaves
    weight = torch.randn(n, 4, generator=generator, dtype=torch.float64)

    def loss(pair) -> torch.Tensor:
        return (pair[0] * weight[:, 0]).sum() + (pair[1] * weight[:, 1:]).sum()

    fast = heads.query(own[0], x.to(dtype), own[1], own[2], own[3])
    slow = reference_heads(encoding, x, *rest, heads=heads)
    assert_near(fast, slow, dtype)
    assert_near(torch.autograd.grad(loss(fast), own), torch.autograd.grad(loss(slow), leaves), dtype)
    alone = heads.density(own[0], x.to(dtype), own[1][:8], own[2])
    assert_near([alone], [slow[0]], dtype)


@pytest.mark.parametrize("dtype", PRECISIONS.values(), ids=PRECISIONS.keys())
def test_covector_is_the_gradient_of_the_raw_density(dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((5000, 5), (8, 5), (1, 8))
    leaves = [torch.randn(s, generator=generator).to(torch.float64).requires_grad_() for s in shapes]
    encoding, hidden, density = leaves
    u = torch.randn(5000, 5, generator=generator).to(torch.float64)
    raw = (density @ torch.relu(hidden @ encoding.t())).sum()
    (expected,) = torch.autograd.grad(raw, encoding, create_graph=True)
    own = [leaf.detach().to(dtype).requires_grad_() for leaf in (hidden, density)]
    found = density_covector(encoding.detach().to(dtype), *own)
    assert_near([found], [expected], dtype)
    assert_near(torch.autograd.grad(found, own, u.to(dtype)), torch.autograd.grad(expected, leaves[1:], u), dtype)


@pytest.mark.parametrize("dtype", PRECISIONS.values(), ids=PRECISIONS.keys())
def test_unit_normals_and_their_gradients(dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    prior, along, u = (torch.randn(500, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    prior[:5], along[:5] = 0.0, along[:5] * 1e-4  # of which all are too short
    leaf = along.clone().requires_grad_()
    gradient = prior + leaf / 2
    expected = -gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-3)
    own = along.to(dtype).requires_grad_()
    found = unit_normals(prior.to(dtype), own, 1e-3)
    assert float(found[:5].detach().norm(dim=1).max()) < 0.5
    assert_near([found], [expected], dtype)
    (ours,), (theirs,) = torch.autograd.grad(found, own, u.to(dtype)), torch.autograd.grad(expected, leaf, u)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-3 if dtype == torch.float32 else 1e-7, atol=1e-4)


@pytest.mark.parametrize("activation", ["exp", "softplus"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_compiled_heads_are_the_same_with_any_number_of_threads(threads, activation) -> None:
    count = 70001  # torch shares as many among its threads, and they are no whole number of vectors
    heads, generator = Heads(8, activation, Blob("gaussian"), 0.0), torch.Generator().manual_seed(1)
    own = [torch.randn(s, generator=generator).requires_grad_() for s in ((count, 5), (16, 5), (1, 8), (3, 8))]
    x = points(count)

    def found() -> list[torch.Tensor]:
        density, albedo = heads.query(own[0], x, *own[1:])
        covector = density_covector(own[0].detach(), own[1][:8], own[2])
        total = density.log().sum() + albedo.square().sum() + covector.square().sum()
        return [density, albedo, covector, *torch.autograd.grad(total, own)]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = found()
        torch.set_num_threads(threads)
        assert all(torch.equal(one, other) for one, other in zip(alone, found(), strict=True))
    finally:
        torch.set_num_threads(before)


def test_exponential_stays_finite_and_finds_back() -> None:
    raw = torch.tensor([-1e4, -3.0, 0.0, 20.0, 1e4], requires_grad=True)
    density = Activate.apply(raw, "exp")
    density.sum().backward()
    assert torch.isfinite(density).all() and raw.grad is not None
    torch.testing.assert_close(density[1:3].detach(), torch.tensor([math.exp(-3.0), 1.0]))
    torch.testing.assert_close(raw.grad, density.detach())
    assert (raw.grad > 0).all()


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("config", [FieldConfig(), FieldConfig(activation="softplus", blob=Blob("gaussian", 5.0, 0.2))])
def test_normal_is_against_the_gradient_of_density(config, interpolation) -> None:
    field, step = tiny(config, interpolation), 1e-7
    x = points(300, extent=0.9).double()
    columns = []
    for axis in range(3):
        shift = step * torch.eye(3, dtype=torch.float64)[axis]
        columns.append((field.density(x + shift) - field.density(x - shift)) / (2 * step))
    gradient = torch.stack(columns, dim=-1).detach()
    length = gradient.norm(dim=-1)
    normal = field.normal(x).detach()
    cosine = (normal * -gradient).sum(-1) / length
    steep = length > 1e-3 * field.density(x).detach().clamp_min(1e-3)
    assert steep.float().mean() > 0.9
    assert (cosine[steep] > 1 - 1e-5).float().mean() > 0.99  # the few others straddle a cell's face or a ReLU's kink
    torch.testing.assert_close(normal.norm(dim=-1), torch.ones(300, dtype=torch.float64))


def test_gradients_of_normals_and_densities_pass_gradcheck() -> None:
    field = tiny(FieldConfig(hidden=5), "smoothstep")
    x = points(6, seed=9, extent=0.8).double()
    state = dict(field.named_parameters())
    names = ["grid", "hidden_weight", "density_weight", "albedo_weight"]

    def call(method: str):
        def run(*values: torch.Tensor):
            wrapper = _Calls(field, method)
            renamed = {f"field.{name}": value for name, value in zip(names, values, strict=True)}
            return functional_call(wrapper, renamed, (x,))

        return run

    leaves = tuple(state[name].detach().clone().requires_grad_() for name in names)
    assert torch.autograd.gradcheck(lambda *v: call("query")(*v).density, leaves)
    assert torch.autograd.gradcheck(lambda *v: call("query")(*v).albedo, leaves)
    assert torch.autograd.gradcheck(call("normal"), leaves)


class _Calls(torch.nn.Module):
    def __init__(self, field: Field, method: str) -> None:
        super().__init__()
        self.field, self.method = field, method

    def forward(self, x: torch.Tensor):
        return getattr(self.field, self.method)(x)


def test_engines_make_the_same_field() -> None:
    fields = [lively(build_field(dataclasses.replace(SMALL, engine=e), "cpu", 5)) for e in ("torch", "numba")]
    x, results = points(3000, seed=7), []
    for field in fields:
        sample, normal = field.query(x), field.normal(x)
        (sample.density.log().sum() + sample.albedo.square().sum() + (normal * points(3000, 8)).sum()).backward()
        torch.testing.assert_close(field.density(x), sample.density)
        grads = [p.grad for p in field.parameters()]
        results.append([sample.density, sample.albedo, normal, *grads])
    close = []
    for a, b in zip(*results, strict=True):
        close.append(((a - b).abs() <= 1e-3 * a.abs().max()).float().mean().item())
    assert min(close) > 0.998, close  # float32 puts a point on the other side of a cell's face or a kink now and then


def test_only_active_levels_count() -> None:
    field = lively(build_field(SMALL, "cpu", 0))
    x = points(500)
    field.active_levels = 2
    before, normal = field.query(x).density.detach(), field.normal(x).detach()
    field.zero_grad()
    (field.query(x).density.sum() + field.normal(x).sum()).backward()
    fine = slice(field.layout.span(2).start, None)
    assert field.grid.grad is not None and not field.grid.grad[fine].any() and field.grid.grad[: fine.start].any()
    with torch.no_grad():
        field.grid[fine] = 3.0
    assert torch.equal(field.query(x).density, before) and torch.equal(field.normal(x), normal)
    field.active_levels = 4
    assert not torch.allclose(field.query(x).density, before)


def test_samples_stay_in_range_everywhere() -> None:
    field = lively(build_field(SMALL, "cpu", 0), size=50.0)
    x = torch.cat([points(2000, extent=3.0), torch.zeros(1, 3), torch.ones(1, 3), -torch.ones(1, 3)])
    sample, normal = field.query(x), field.normal(x)
    assert sample.density.shape == (2003,) and sample.albedo.shape == normal.shape == (2003, 3)
    assert (sample.density >= 0).all() and torch.isfinite(sample.density).all() and torch.isfinite(normal).all()
    assert (sample.albedo >= 0).all() and (sample.albedo <= 1).all()
    for method in (field.density, field.normal):
        assert len(method(torch.empty(0, 3))) == 0
    field.query(torch.empty(0, 3)).density.sum().backward()


def test_inference_in_pieces_changes_nothing() -> None:
    field, x = lively(build_field(SMALL, "cpu", 0)), points((1 << 17) + 1000)
    with torch.no_grad():
        whole, normals, densities = field.query(x), field.normal(x), field.density(x)
        last = x[-1500:]
        end = field.query(last)
        torch.testing.assert_close(whole.density[-1500:], end.density)
        torch.testing.assert_close(whole.albedo[-1500:], end.albedo)
        torch.testing.assert_close(normals[-1500:], field.normal(last))
        torch.testing.assert_close(densities, whole.density)


def sphere_steps(steps: int) -> tuple[Field, list[float]]:
    """Fit occupancy and colour of a ball off the centre."""
    field = build_field(SMALL, "cpu", 0)
    optimizer = torch.optim.Adam(field.parameter_groups(0.02), betas=(0.9, 0.99), eps=1e-15)
    losses: list[float] = []
    for step in range(steps):
        x = points(3000, seed=100 + step)
        inside = ((x - torch.tensor([0.3, 0.0, -0.2])).norm(dim=-1) < 0.45).float()
        sample = field.query(x)
        opacity = 1 - torch.exp(-0.3 * sample.density)
        colour = (sample.albedo - torch.tensor([0.9, 0.1, 0.2])).square().sum(-1)
        loss = (opacity - inside).square().mean() + (inside * colour).mean()
        loss = loss + 1e-3 * (field.normal(x[:1500]) - x[:1500]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return field, losses


def test_it_learns_a_shape_and_a_colour() -> None:
    field, losses = sphere_steps(120)
    assert losses[-1] < 0.2 * losses[0], losses[::20]
    x = points(4000, seed=1)
    offset = x - torch.tensor([0.3, 0.0, -0.2])
    inside = offset.norm(dim=-1) < 0.45
    with torch.no_grad():
        sample = field.query(x)
    solid = sample.density > 1.0
    assert (solid & inside).sum() > 0.85 * (solid | inside).sum()
    mean = sample.albedo[inside].mean(0)
    torch.testing.assert_close(mean, torch.tensor([0.9, 0.1, 0.2]), atol=0.1, rtol=0)


def test_training_is_the_same_for_every_number_of_threads() -> None:
    torch.set_num_threads(1)
    first, losses = sphere_steps(4)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        again, same = sphere_steps(4)
        assert same == losses
        for a, b in zip(first.parameters(), again.parameters(), strict=True):
            assert torch.equal(a, b)


def test_field_is_bitwise_the_same_for_every_number_of_threads() -> None:
    field, x = lively(build_field(SMALL, "cpu", 0)), points(9000)
    directions = points(9000, seed=1)

    def results() -> list[torch.Tensor]:
        sample, normal = field.query(x), field.normal(x)
        outputs = [sample.density, sample.albedo, normal]
        upstream = [directions[:, 0], directions, directions]
        return [*outputs, *torch.autograd.grad(outputs, list(field.parameters()), upstream)]

    torch.set_num_threads(1)
    first = results()
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(first, results(), strict=True))


def test_parameter_groups_cover_everything_once() -> None:
    field = build_field(SMALL, "cpu", 0)
    grid, heads = field.parameter_groups(0.01)
    assert (grid["lr"], heads["lr"]) == (0.01, pytest.approx(0.001))
    assert [id(p) for p in grid["params"]] == [id(field.grid)]
    assert {id(p) for group in (grid, heads) for p in group["params"]} == {id(p) for p in field.parameters()}


def test_a_checkpoint_moves_between_engines() -> None:
    trained = lively(build_field(SMALL, "cpu", 0))
    other = build_field(dataclasses.replace(SMALL, engine="torch"), "cpu", 9)
    other.load_state_dict(trained.state_dict())
    x = points(200)
    torch.testing.assert_close(other.density(x), trained.density(x), rtol=1e-3, atol=1e-4)
