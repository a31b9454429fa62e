"""Plans for the memory of a device: which pieces of a model are where, and how many are worked on at a time.

The first plan is chosen from the memory that is free, by figures that were measured on Stable Diffusion 2.1's networks
and are scaled to others by their widths. They are no promise: where memory runs out, the next plan follows, and the run
goes on. All plans but "tiled" give the same numbers up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from ..devices import free_memory, release_memory

Tell = Callable[[str], None]
"""Who is told what a person should know, one sentence or a few a time."""

_ENCODER_BYTES_A_PIXEL = 1550e6 / 512**2 / 2 / 128
"""What the encoder of Stable Diffusion's VAE saves for its gradient, by pixel, byte of its dtype and first width."""
_TINY_SHARE = 235 / 1550
"""The same of AutoencoderTiny, as a share."""
_ROW_BYTES_A_CELL = 250e6 / 64**2 / 2
"""An estimate of what a row of the denoiser needs, by latent cell and byte of its dtype."""
_USUAL_ROWS = 4
_RESERVE = 1.2e9
"""For the field, the renderer and torch itself."""


def silent(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Plan:
    """How a model is laid out."""

    name: str
    sentence: str
    rows: int = 0
    """Rows of the denoiser in one call; 0 is all."""
    by_piece: bool = False
    """Whether the VAE encodes one image at a time and computes its activations again on the way back."""
    tiles: bool = False
    """Whether the VAE works in tiles of half the image's side."""
    offload: bool = False
    """Whether the denoiser's weights are in main memory and come to the device layer by layer."""


PLANS = (
    Plan("fast", "everything on the device at once"),
    Plan("careful", "one piece at a time", rows=1, by_piece=True),
    Plan("tiled", "one piece at a time, the VAE in tiles", rows=1, by_piece=True, tiles=True),
    Plan(
        "offload", "networks in main memory, layer by layer on the device",
        rows=1, by_piece=True, tiles=True, offload=True,
    ),
)  # fmt: skip


@runtime_checkable
class Economical(Protocol):
    """A guidance that can do with less memory."""

    def economise(self) -> str | None:
        """Step down to the next plan; the sentence that says so, or None if there is no other."""
        ...


def spared(guidance: object, full: torch.OutOfMemoryError) -> str:
    """Have a guidance make do with less memory; the sentence that says so. Raises ``full`` again where it cannot."""
    full = full.with_traceback(None)  # its frames hold what was reserved
    said = guidance.economise() if isinstance(guidance, Economical) else None
    if said is None:
        raise full from None
    return said


@dataclass
class Layout:
    """The networks of one model under a plan."""

    vae: Any
    """AutoencoderKL, AutoencoderTiny, or None."""
    denoiser: Any
    device: torch.device
    image_size: tuple[int, int]
    plan: Plan = PLANS[0]

    def bytes_needed(self, plan: Plan) -> float:
        """An estimate of what ``plan`` needs of the device, the field and the renderer included."""
        pixels, denoiser = self.image_size[0] * self.image_size[1], _weight_bytes(self.denoiser)
        vae, cells, saved = 0.0, float(pixels), 0.0
        if self.vae is not None:
            vae = _weight_bytes(self.vae)
            widths = self.vae.config.block_out_channels
            cells = pixels / 4 ** (len(widths) - 1)
            width = 128 * _TINY_SHARE if _is_tiny(self.vae) else widths[0]
            saved = pixels * self.vae.dtype.itemsize * _ENCODER_BYTES_A_PIXEL * width
        rows = (plan.rows or _USUAL_ROWS) * cells * self.denoiser.dtype.itemsize * _ROW_BYTES_A_CELL
        saved *= (0.4 if plan.by_piece else 1.0) * (0.3 if plan.tiles else 1.0)
        return vae + (0.1 if plan.offload else 1.0) * denoiser + max(rows, saved) + _RESERVE

    def choose(self, wanted: str) -> str:
        """Take the plan ``wanted``, or with "auto" the first that fits into the free memory; says which and why."""
        plans = [plan for plan in PLANS if self._possible(plan)]
        if wanted != "auto":
            plan = next((plan for plan in plans if plan.name == wanted), plans[-1])
            self._apply(plan)
            return f"Memory plan {plan.name}: {plan.sentence}, as asked for."
        free = free_memory(self.device)
        held = 0.0 if self.denoiser.device.type != self.device.type else _weight_bytes(self.denoiser)
        fits = [plan for plan in plans if free is None or self.bytes_needed(plan) - held <= free]
        plan = next(iter(fits), plans[-1])
        self._apply(plan)
        known = "its free memory is not known" if free is None else f"{free / 1e9:.1f} GB are free"
        need = self.bytes_needed(plan) / 1e9
        return f"Memory plan {plan.name}: {plan.sentence} (about {need:.1f} GB; {known} on {self.device})."

    def economise(self) -> str | None:
        """See :class:`Economical`."""
        for plan in [plan for plan in PLANS[PLANS.index(self.plan) + 1 :] if self._possible(plan)]:
            release_memory(self.device)
            try:
                self._apply(plan)
            except torch.OutOfMemoryError:
                continue
            return f"The memory of {self.device} ran out: going on with the plan {plan.name} ({plan.sentence})."
        return None

    def _possible(self, plan: Plan) -> bool:
        # Weights in main memory are where the CPU's are; a tile of a pixel model is no smaller than its image.
        if plan.offload:
            return self.device.type != "cpu" and hasattr(self.denoiser, "enable_group_offload")
        return not plan.tiles or self.vae is not None

    def _apply(self, plan: Plan) -> None:
        if plan.offload and self.plan.offload:
            return
        self.plan = plan
        if self.vae is not None:
            self.vae.to(self.device)
            _lay_out_vae(self.vae, plan, self.image_size)
        if plan.offload:
            self.denoiser.to("cpu")
            release_memory(self.device)
            self.denoiser.enable_group_offload(
                onload_device=self.device, offload_device=torch.device("cpu"), offload_type="leaf_level"
            )
        else:
            self.denoiser.to(self.device)


def _lay_out_vae(vae: Any, plan: Plan, size: tuple[int, int]) -> None:
    if plan.by_piece:
        vae.enable_slicing()
        # With checkpoints, diffusers' AutoencoderTiny forgets to scale its image; it has little to save besides.
        if not _is_tiny(vae):
            vae.enable_gradient_checkpointing()
    if plan.tiles:
        vae.enable_tiling()
        shrink = 2 ** (len(vae.config.block_out_channels) - 1)
        vae.tile_sample_min_size = max(min(size) // 2, 1)
        vae.tile_latent_min_size = max(vae.tile_sample_min_size // shrink, 1)


def _is_tiny(vae: Any) -> bool:
    return type(vae).__name__ == "AutoencoderTiny"  # by its name: diffusers takes seconds to import


def _weight_bytes(network: Any) -> float:
    return float(sum(p.numel() * p.element_size() for p in network.parameters()))
