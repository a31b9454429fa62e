"""The two small networks on top of the encoding: one hidden ReLU layer for density, one for albedo, no biases.

No biases, as in Instant NGP and threestudio: where the grid is zero, the prior alone speaks.

On a GPU these are a few matrix products. On the CPU they are compiled loops (:mod:`.compiled_heads`); where numba is
missing, and in float64, they run in chunks whose hidden layer stays in a core's cache, each
core on its own chunks, features-first outside and sample-first inside (the fastest mix of layouts with MKL), with
everything elementwise done on the way: 3 times faster than whole matrices, and no thread ever spins at a barrier.
Sums over chunks are taken in order, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .prior import Activate, Activation, Blob, activate_, activation_slope, squared_length
from .workers import run_shares, share_count

try:
    from . import compiled_heads as compiled
except Exception:  # noqa: BLE001 - a numba that does not fit numpy raises more than ImportError
    compiled = None

_CHUNK = 2048


@dataclass(frozen=True)
class Heads:
    """What is fixed about the heads: width of each hidden layer, the density's activation, prior and bias."""

    hidden: int
    activation: Activation
    blob: Blob
    bias: float

    def offset(self, x: Tensor) -> Tensor:
        """What is added to the raw density at x [N, 3]: [N]."""
        value = self.blob.value(x)
        return value.add_(self.bias) if self.bias else value

    def density(self, encoding: Tensor, x: Tensor, hidden: Tensor, density: Tensor) -> Tensor:
        """Density [N] for encoding [N, K], hidden [H, K] and density [1, H] weights; differentiable by all three."""
        if compiled is not None and compiled.fits(encoding, self.hidden):
            return compiled.query(encoding, x, hidden, (density,), self)
        if encoding.device.type == "cpu":
            return _Query.apply(encoding, x, hidden, density, self)[0]
        raw = density @ torch.relu(hidden @ encoding.t())
        return Activate.apply(raw[0] + self.offset(x), self.activation)

    def query(
        self, encoding: Tensor, x: Tensor, hidden: Tensor, density: Tensor, albedo: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Density [N] and albedo [N, 3] for hidden [2H, K], density [1, H] and albedo [3, H] weights.

        The density's hidden units come first. Differentiable by all of them.
        """
        if compiled is not None and compiled.fits(encoding, self.hidden):
            return compiled.query(encoding, x, hidden, (density, albedo), self)
        output = torch.block_diag(density, albedo)
        if encoding.device.type == "cpu":
            return _Query.apply(encoding, x, hidden, output, self)
        raw = output @ torch.relu(hidden @ encoding.t())
        return Activate.apply(raw[0] + self.offset(x), self.activation), torch.sigmoid(raw[1:]).t()


def density_covector(encoding: Tensor, hidden: Tensor, density: Tensor) -> Tensor:
    """Gradient [N, K] of the raw density by the encoding: W₁ᵀ(w₂ ⊙ [W₁·encoding > 0]).

    Differentiable by hidden [H, K] and density [1, H]; by the encoding its derivative is zero almost everywhere.
    """
    if compiled is not None and compiled.fits(encoding, len(hidden)):
        return compiled.covector(encoding, hidden, density)
    if encoding.device.type == "cpu":
        return _Covector.apply(encoding, hidden, density)
    alive = (hidden @ encoding.t() > 0.0) * density.t()
    return (hidden.t() @ alive).t()


def unit_normals(prior: Tensor, along: Tensor, shortest: float) -> Tensor:
    """Unit vectors [N, 3] against prior + along / 2, both [N, 3]; shorter where that is shorter than ``shortest``.

    Differentiable by ``along``.
    """
    if compiled is not None and compiled.fits(along, 0):
        return compiled.unit_normals(prior, along, shortest)
    gradient = torch.add(prior, along, alpha=0.5)
    inverse = squared_length(gradient).clamp_min(shortest**2).rsqrt()
    return gradient * -inverse.unsqueeze(-1)


def _chunks(n: int, work: Callable[[int, int, int], None]) -> int:
    """Call ``work(chunk, low, high)`` for every chunk of n samples, shared among threads; return their number."""
    count = -(-n // _CHUNK)

    def task(share: int, shares: int) -> None:
        for chunk in range(share, count, shares):
            work(chunk, chunk * _CHUNK, min(n, (chunk + 1) * _CHUNK))

    run_shares(task, share_count(count // 2))  # two chunks at least, or waking a thread saves nothing
    return count


def _hidden_layer(rows: Tensor, weight: Tensor) -> Tensor:
    """Hidden layer after its ReLU, [n, M], for features [K, n]."""
    return torch.mm(rows.t(), weight.t()).relu_()


class _Query(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, encoding: Tensor, x: Tensor, hidden: Tensor, output: Tensor, heads: Heads) -> Any:
        rows = encoding.t()
        n, channels = len(x), output.shape[0] - 1
        density, albedo = rows.new_empty(n), rows.new_empty(channels, n)

        def work(_: int, low: int, high: int) -> None:
            raw = torch.mm(output, _hidden_layer(rows[:, low:high], hidden).t())
            density[low:high] = activate_(raw[0].add_(heads.offset(x[low:high])), heads.activation)
            if channels:
                torch.sigmoid(raw[1:], out=albedo[:, low:high])

        _chunks(n, work)
        ctx.save_for_backward(encoding, hidden, output, density, albedo)
        ctx.heads = heads
        return density, albedo.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        encoding, hidden, output, density, albedo = ctx.saved_tensors
        rows, to_density, to_colour = encoding.t(), grad_outputs[0], grad_outputs[1].t()
        (k, n), (o, m) = rows.shape, output.shape
        count = -(-n // _CHUNK)
        to_rows = torch.empty_like(rows)
        to_hidden, to_output = rows.new_empty(count, k, m), rows.new_empty(count, o, m)

        def work(chunk: int, low: int, high: int) -> None:
            to_raw = rows.new_empty(o, high - low)
            slope = activation_slope(density[low:high], ctx.heads.activation)
            torch.mul(to_density[low:high], slope, out=to_raw[0])
            if o > 1:
                colour = albedo[:, low:high]
                torch.mul(to_colour[:, low:high], colour - colour * colour, out=to_raw[1:])
            layer = _hidden_layer(rows[:, low:high], hidden)
            torch.mm(to_raw, layer, out=to_output[chunk])
            inner = torch.mm(to_raw.t(), output).mul_(layer.sign_())
            torch.mm(rows[:, low:high], inner, out=to_hidden[chunk])
            torch.mm(hidden.t(), inner.t(), out=to_rows[:, low:high])

        _chunks(n, work)
        return to_rows.t(), None, to_hidden.sum(0).t(), to_output.sum(0), None


class _Covector(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, encoding: Tensor, hidden: Tensor, density: Tensor) -> Tensor:
        rows = encoding.t()
        n = rows.shape[1]
        out, alive = torch.empty_like(rows), rows.new_empty(n, hidden.shape[0])

        def work(_: int, low: int, high: int) -> None:
            alive[low:high] = _hidden_layer(rows[:, low:high], hidden).sign_()
            torch.mm(hidden.t(), (alive[low:high] * density).t(), out=out[:, low:high])

        _chunks(n, work)
        ctx.save_for_backward(alive, hidden, density)
        return out.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        alive, hidden, density = ctx.saved_tensors
        rows = grad_outputs[0].t()
        (h, k), n = hidden.shape, rows.shape[1]
        count = -(-n // _CHUNK)
        to_hidden, to_density = rows.new_empty(count, k, h), rows.new_empty(count, h)

        def work(chunk: int, low: int, high: int) -> None:
            piece, mask = rows[:, low:high], alive[low:high]
            torch.mm(piece, mask * density, out=to_hidden[chunk])
            torch.sum(torch.mm(piece.t(), hidden.t()).mul_(mask), 0, out=to_density[chunk])

        _chunks(n, work)
        return None, to_hidden.sum(0).t(), to_density.sum(0, keepdim=True)
