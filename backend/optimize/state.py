"""Everything that changes during a run, and its way into a checkpoint and back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoint import Checkpoint
from ..field import Field, FieldConfig, build_field
from ..health import Health
from ..rendering import LearnedBackground, OccupancyGrid
from ..request import Request
from .dents import Dents
from .refine import Paintings

RESTART_RATE = 0.5
"""A restarted run learns at this share of the rate."""
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def rewound(checkpoint: Checkpoint, step: int) -> Checkpoint:
    """A checkpoint as if its run had only just done ``step`` steps, if it has done more: the field stays as it is.

    Adam begins anew, since what it knows is of the steps that do not count.
    """
    tally = checkpoint.values["tally"]
    if tally["step"] <= step:
        return checkpoint
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith("adam.")}
    tensors["dents.passed"] = tensors["dents.passed"].clamp(max=step - 1)
    return dataclasses.replace(
        checkpoint, tensors=tensors, values={**checkpoint.values, "tally": {**tally, "step": step}}
    )


@dataclass
class Tally:
    """Numbers of a run; plain JSON in a checkpoint."""

    step: int = 0
    """Steps done."""
    restarts: int = 0
    reason: str = ""
    """Why the run was restarted."""
    seconds: float = 0.0
    """Spent in steps, over all processes that worked on the run."""
    sketching: float = 0.0
    """Seconds before the steps, of sketches and of what is foretold by them; counted as those."""
    loss: float = 0.0
    """The guidance's, averaged over about the last 20 steps; so are the following."""
    opacity: float = 0.0
    """Mean over the pixels."""
    samples: float = 0.0
    """Field samples a step."""
    gradient_norm: float = 0.0
    """Of all parameters, before it is clipped."""
    reference_error: float = 0.0
    """Mean squared error of the pictures' colours."""

    def average(
        self, loss: float | None, opacity: float, samples: int, gradient_norm: float, reference_error: float | None
    ) -> None:
        """Take a step into the averages; None for what the step did not look at."""
        share = 1.0 / min(self.step + 1, 20)
        if loss is not None:
            self.loss += share * (loss - self.loss)
        if reference_error is not None:
            self.reference_error += share * (reference_error - self.reference_error)
        self.opacity += share * (opacity - self.opacity)
        self.samples += share * (samples - self.samples)
        self.gradient_norm += share * (gradient_norm - self.gradient_norm)


@dataclass
class RunState:
    """A run between two steps."""

    field: Field
    occupancy: OccupancyGrid
    background: LearnedBackground
    dents: Dents
    paintings: Paintings
    adam: torch.optim.Adam
    rates: tuple[float, ...]
    """Learning rates of Adam's groups, before the schedule."""
    rng: np.random.Generator
    """Cameras, lights, backgrounds, sample positions."""
    generator: torch.Generator
    """The guidance's noise and timesteps; on the run's device."""
    health: Health
    tally: Tally

    @classmethod
    def fresh(cls, request: Request, device: torch.device, restarts: int = 0) -> RunState:
        """The state before the first step; all chance comes from the seed and the number of restarts."""
        settings = request.optimize
        seeds = np.random.SeedSequence([request.seed, restarts]).generate_state(4).tolist()
        field = build_field(settings, device, seeds[0], FieldConfig(mirrored=request.mirrored))
        background = LearnedBackground(device, seeds[1])
        rate = settings.learning_rate * RESTART_RATE**restarts
        groups: list[dict[str, Any]] = field.parameter_groups(rate)
        groups.append({"params": list(background.parameters()), "lr": rate / 10})
        return cls(
            field=field,
            occupancy=OccupancyGrid(settings.occupancy_resolution, device),
            background=background,
            dents=Dents(settings.occupancy_resolution, device),
            paintings=Paintings(request.refine, settings.resolution, device),
            # One kernel for all parameters where there is one: a millisecond a step on a CPU.
            adam=torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=device.type in {"cpu", "cuda"}),
            rates=tuple(group["lr"] for group in groups),
            rng=np.random.default_rng(seeds[2]),
            generator=torch.Generator(device).manual_seed(seeds[3]),
            health=Health(),
            tally=Tally(restarts=restarts),
        )

    def set_learning_rate(self, factor: float, heads: float | None = None) -> None:
        """Scale Adam's learning rates by the schedule's ``factor``, the heads' by a factor of their own if given."""
        for index, (group, rate) in enumerate(zip(self.adam.param_groups, self.rates, strict=True)):
            group["lr"] = rate * (factor if heads is None or index == 0 else heads)

    @property
    def parameters(self) -> list[Tensor]:
        """All that Adam steps."""
        return [p for group in self.adam.param_groups for p in group["params"]]

    def pack(self, *, regular: bool) -> Checkpoint:
        """A checkpoint of this state; ``regular`` as there."""
        tensors: dict[str, Tensor] = {"generator": self.generator.get_state()}
        for name, module in self._modules().items():
            tensors.update({f"{name}.{key}": value for key, value in module.state_dict().items()})
        for index, parameter in enumerate(self.parameters):
            moments = self.adam.state.get(parameter, {})
            tensors.update({f"adam.{index}.{key}": moments[key] for key in _MOMENTS if key in moments})
        values = {
            "tally": dataclasses.asdict(self.tally),
            "health": dataclasses.asdict(self.health),
            "rng": self.rng.bit_generator.state,
            "device": self.generator.device.type,
        }
        copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        return Checkpoint(copies, values, regular)

    def unpack(self, checkpoint: Checkpoint) -> bool:
        """Become the state of a checkpoint of the same request.

        False if it comes from another kind of device: all is the same then but the generator, which begins anew.
        """
        values = checkpoint.values
        self.tally = Tally(**values["tally"])
        self.health = Health(**values["health"])
        self.rng.bit_generator.state = values["rng"]
        self.unpack_field(checkpoint)
        for index, parameter in enumerate(self.parameters):
            moments: dict[str, Tensor] = {}
            for key in _MOMENTS:
                stored = checkpoint.tensors.get(f"adam.{index}.{key}")
                if stored is not None:
                    moments[key] = stored.to(parameter.device, copy=True)
            if moments:
                self.adam.state[parameter] = moments
        same = values["device"] == self.generator.device.type
        if same:
            self.generator.set_state(checkpoint.tensors["generator"])
        return same

    def unpack_field(self, checkpoint: Checkpoint) -> None:
        """Take the field and what is known of it from a checkpoint, and nothing else."""
        for name, module in self._modules().items():
            prefix = f"{name}."
            part = {k.removeprefix(prefix): v for k, v in checkpoint.tensors.items() if k.startswith(prefix)}
            module.load_state_dict(part)

    def metrics(self) -> dict[str, Any]:
        """What the run came to, for metrics.json."""
        tally = self.tally
        return {
            "steps": tally.step,
            "seconds": round(tally.seconds, 3),
            "sketching_seconds": round(tally.sketching, 3),
            "steps_per_second": round(tally.step / max(tally.seconds, 1e-9), 3),
            "restarts": tally.restarts,
            "restart_reason": tally.reason,
            "loss": tally.loss,
            "opacity": tally.opacity,
            "gradient_norm": tally.gradient_norm,
            "samples_per_step": round(tally.samples),
            "occupied_fraction": self.occupancy.occupied_fraction,
            "parameters": sum(p.numel() for p in self.parameters),
        }

    def _modules(self) -> dict[str, nn.Module]:
        return {
            "field": self.field,
            "occupancy": self.occupancy,
            "background": self.background,
            "dents": self.dents,
            "paintings": self.paintings,
        }
