"""Score distillation sampling (DreamFusion, arXiv 2209.14988, section 3; gradient w(t)·(ε̂ − ε))."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..request import GuidanceSettings, ViewGuidanceSettings
from .inversion import Predict, ism_noise, sdi_noise

PredictionType = Literal["epsilon", "v_prediction", "sample", "flow"]
Weighting = Literal["sds", "uniform", "fantasia3d"]
DistillationSettings = GuidanceSettings | ViewGuidanceSettings
"""Their timesteps, weights and distillation are alike."""


@dataclass(frozen=True)
class NoiseSchedule:
    """The forward process x_t = a_t·x_0 + s_t·ε, and what the network predicts of it.

    In a diffusion a = √ᾱ and s = √(1 − ᾱ); in a rectified flow a = 1 − σ and s = σ (arXiv 2209.03003). Whatever the
    network predicts becomes the noise ε, so that all that is written about ε holds for every model.
    """

    alphas_cumprod: Tensor
    """[T] float32, ᾱ; a flow's is that of the diffusion which it is but for its scale, a²/(a² + s²)."""
    prediction_type: PredictionType
    """epsilon: ε; v_prediction: √ᾱ·ε − √(1−ᾱ)·x_0 (Salimans and Ho, arXiv 2202.00512); sample: x_0; flow: ε − x_0."""
    sigmas: Tensor | None = None
    """[T] float32, a flow's σ, rising; None for a diffusion."""

    @classmethod
    def flow(cls, sigmas: Tensor) -> NoiseSchedule:
        """That of a rectified flow with ``sigmas`` [T], rising, in (0, 1]."""
        signal = (1.0 - sigmas).square()
        return cls(signal / (signal + sigmas.square()), "flow", sigmas)

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.alphas_cumprod.device

    @property
    def last(self) -> int:
        """The last timestep that has any signal: with zero terminal SNR (arXiv 2305.08891) the very last has none."""
        return int((self._signal() > 1e-3).nonzero().max())

    def times(self, timesteps: Tensor) -> Tensor:
        """What the network is told of ``timesteps`` [B]: themselves, or a flow's σ of them in 1000ths."""
        return timesteps if self.sigmas is None else 1000.0 * self.sigmas[timesteps]

    def _signal(self) -> Tensor:
        return self.alphas_cumprod.sqrt() if self.sigmas is None else 1.0 - self.sigmas

    def signal_and_noise(self, timesteps: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
        """The factors a and s of ``timesteps`` [B], each [B, 1, …] with as many ``dimensions``."""
        shape = (-1, *[1] * (dimensions - 1))
        if self.sigmas is not None:
            sigma = self.sigmas[timesteps].view(shape)
            return 1.0 - sigma, sigma
        alpha = self.alphas_cumprod[timesteps].view(shape)
        return alpha.sqrt(), (1.0 - alpha).sqrt()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t [B, …] of ``latents`` and ``noise`` [B, …] at ``timesteps`` [B]."""
        signal, spread = self.signal_and_noise(timesteps, latents.ndim)
        return signal * latents + spread * noise

    def clean(self, noisy: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The latents x_0 [B, …] that became ``noisy`` by ``noise`` at ``timesteps`` [B], all up to :attr:`last`."""
        signal, spread = self.signal_and_noise(timesteps, noisy.ndim)
        return (noisy - spread * noise) / signal

    def moved(self, noisy: Tensor, noise: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """``noisy`` [B, …] at ``before`` [B], taken along ``noise`` to ``after`` [B]: a step of DDIM, either way.

        In a flow it is a step of Euler's.
        """
        return self.add_noise(self.clean(noisy, noise, before), noise, after)

    def noise_in(self, noisy: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        """The noise ε [B, …] by which ``latents`` became ``noisy`` at ``timesteps`` [B]."""
        signal, spread = self.signal_and_noise(timesteps, noisy.ndim)
        return (noisy - signal * latents) / spread

    def noise_of(self, prediction: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The noise ε that a network's ``prediction`` [R, …] on ``noisy`` [R, …] at ``timesteps`` [R] implies."""
        if self.prediction_type == "epsilon":
            return prediction
        signal, spread = self.signal_and_noise(timesteps, noisy.ndim)
        if self.prediction_type == "v_prediction":
            return signal * prediction + spread * noisy
        if self.prediction_type == "flow":
            return noisy + signal * prediction
        return (noisy - signal * prediction) / spread.clamp_min(1e-4)

    def weight(self, timesteps: Tensor, weighting: Weighting) -> Tensor:
        """w(t) [B]: 1 − ᾱ (DreamFusion), 1, or √ᾱ·(1 − ᾱ) (Fantasia3D)."""
        alpha = self.alphas_cumprod[timesteps]
        if weighting == "uniform":
            return torch.ones_like(alpha)
        return (1.0 - alpha) * (alpha.sqrt() if weighting == "fantasia3d" else 1.0)


def timestep_shares(settings: DistillationSettings, progress: float) -> tuple[float, float]:
    """Lowest and highest share of the noise schedule at ``progress`` in [0, 1].

    Both ends move from ``timestep_range`` to ``timestep_end``: not at all, in proportion to the progress, or to its
    square root (HiFA, arXiv 2305.18766).
    """
    done = min(max(progress, 0.0), 1.0)
    moved = {"none": 0.0, "linear": done, "sqrt": math.sqrt(done)}[settings.timestep_anneal]
    low, high = (a + moved * (b - a) for a, b in zip(settings.timestep_range, settings.timestep_end, strict=True))
    return low, high


def sample_timesteps(steps: int, shares: tuple[float, float], batch: int, generator: torch.Generator) -> Tensor:
    """[batch] int64, each drawn anew and evenly from the whole numbers of ``shares``·``steps``, both ends included."""
    low, high = (min(int(share * steps + 1e-9), steps - 1) for share in shares)
    return torch.randint(low, high + 1, (batch,), generator=generator, device=generator.device)


@dataclass(frozen=True)
class ScoreGradient:
    """The gradient of score distillation on a batch of latents."""

    gradient: Tensor
    """[B, …] float32, finite."""
    diagnostics: Tensor
    """[4], see :data:`DIAGNOSTICS`; a tensor, so that the device is waited for once only."""


DIAGNOSTICS = ("timestep", "weight", "gradient_rms", "nonfinite")
"""Mean timestep, mean w(t), root mean square of the gradient, share of the gradient that was not finite."""


@torch.no_grad()
def score_gradient(
    latents: Tensor,
    predict: Predict,
    schedule: NoiseSchedule,
    settings: DistillationSettings,
    progress: float,
    generator: torch.Generator,
    invert: Predict | None = None,
) -> ScoreGradient:
    """w(t)·(ε̂ − ε) for ``latents`` [B, …], one t and one ε per sample; entries that are not finite become 0.

    ``predict`` maps x_t [B, …] and t [B] to the guided noise ε̂ [B, …]. ε stays in the gradient as a control variate
    (DreamFusion, App. A.4). It is drawn at random, or found by inversion with ``invert``, which other distillations
    than "sds" need; see :mod:`.inversion`.
    """
    latents = latents.detach()
    shares = timestep_shares(settings, progress)
    timesteps = sample_timesteps(len(schedule), shares, len(latents), generator).to(latents.device)
    noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(latents.device)
    noisy = schedule.add_noise(latents, noise, timesteps)
    if settings.distillation != "sds":
        if invert is None:
            raise ValueError(f"The distillation {settings.distillation!r} needs a network to invert with.")
        find = sdi_noise if settings.distillation == "sdi" else ism_noise
        noisy, noise = find(latents, timesteps, invert, schedule, settings.inversion_steps)
    guided = predict(noisy, timesteps)
    weight = schedule.weight(timesteps, settings.weighting)
    raw = weight.view(-1, *[1] * (latents.ndim - 1)) * (guided - noise)
    gradient = torch.nan_to_num(raw, nan=0.0, posinf=0.0, neginf=0.0)
    broken = 1.0 - torch.isfinite(raw).float().mean()
    numbers = [timesteps.float().mean(), weight.mean(), gradient.square().mean().sqrt(), broken]
    return ScoreGradient(gradient, torch.stack(numbers))


def sds_loss(latents: Tensor, gradient: Tensor) -> Tensor:
    """A scalar loss whose gradient by ``latents`` [B, …] is ``gradient`` [B, …] / B, in float32.

    The reparametrised form ½·‖x − sg(x − g)‖² / B: unlike a hand-written backward pass it survives loss scaling.
    """
    latents = latents.float()
    target = (latents - gradient).detach()
    return 0.5 * functional.mse_loss(latents, target, reduction="sum") / len(latents)
