"""A training run: time budget, processes that share the work, steps, averaged weights, checkpoints, logs."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..devices import computes_bfloat16

_FUSED = ("cpu", "cuda")
"""Devices for which torch has an AdamW in one pass."""


@dataclass(frozen=True)
class Team:
    """Equal processes that train one model, each on its own batches: on a CPU, two of one thread outrun one of two."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes logs and checkpoints."""
        return self.rank == 0

    def average(self, parameters: list[nn.Parameter], progress: float) -> float:
        """Average the gradients in place; returns the leader's progress, so that all stop at the same step."""
        if self.size == 1:
            return progress
        mine = torch.tensor([progress if self.leads else 0.0])
        flat = torch.cat([mine, *(p.grad.flatten() for p in parameters if p.grad is not None)])
        torch.distributed.all_reduce(flat)
        start = 1
        for parameter in parameters:
            if parameter.grad is not None:
                count = parameter.numel()
                parameter.grad.copy_(flat[start : start + count].view_as(parameter) / self.size)
                start += count
        return float(flat[0])


class Clock:
    """Counts the seconds of training against ``minutes``, those before a resume included."""

    def __init__(self, minutes: float, used: float = 0.0) -> None:
        self.budget, self.used, self.last = minutes * 60, used, time.monotonic()

    def tick(self) -> float:
        """Progress: 1 and more when the budget is used."""
        now = time.monotonic()
        self.used += now - self.last
        self.last = now
        return self.used / self.budget if self.budget else 1.0


@dataclass(frozen=True)
class Course:
    """How long and how fast one set of weights is trained."""

    minutes: float
    learning_rate: float
    ema: float = 0.999
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    log_every: int = 200
    """Steps."""
    save_every: float = 90.0
    """Seconds."""


@dataclass(frozen=True)
class BaseRecipe:
    """What the trainings on random objects share; each has its own numbers."""

    objects: int
    seed: int
    batch: int
    minutes: float
    learning_rate: float
    ema: float = 0.999
    workers: int = 2
    """Processes that render views."""
    processes: int = 1
    """Processes that train; each takes its share of the batch."""

    @property
    def course(self) -> Course:
        """Of all the minutes."""
        return Course(self.minutes, self.learning_rate, self.ema, (0.9, 0.99), weight_decay=0.01)


def fit(
    loss_at: Callable[[float], tuple[Tensor, dict[str, Tensor]]],
    parameters: list[nn.Parameter],
    parts: dict[str, nn.Module],
    course: Course,
    path: Path,
    team: Team,
) -> None:
    """Train ``parameters``, of ``parts``, until the course's minutes are used; then put their averages in place.

    ``loss_at`` draws a batch and gives the loss and figures to log, at a progress in [0, 1]. What lies in ``path`` is
    resumed.
    """
    device = parameters[0].device
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(
        parameters,
        course.learning_rate,
        betas=course.betas,
        weight_decay=course.weight_decay,
        fused=device.type in _FUSED,
    )
    state = load(path, **parts, optimizer=optimizer)
    average = [a.to(device) for a in state.get("average", average)]
    clock, step = Clock(course.minutes, state.get("used", 0.0)), int(state.get("step", 0))
    progress, saved, started = clock.tick(), time.monotonic(), step
    while progress < 1:
        set_rate(optimizer, course.learning_rate * rate_factor(progress))
        loss, figures = loss_at(progress)
        progress = step_with(optimizer, loss, parameters, team, clock.tick())
        step += 1
        average_in(average, parameters, step, course.ema)
        if team.leads and step % course.log_every == 0:
            log(path, step, clock.used, loss=float(loss.detach()), **{k: float(v) for k, v in figures.items()})
        if team.leads and time.monotonic() - saved > course.save_every:
            save(path, step, clock.used, average, **parts, optimizer=optimizer)
            saved = time.monotonic()
    if team.leads and step > started:
        save(path, step, clock.used, average, **parts, optimizer=optimizer)
    adopt(parameters, average)


def read_command(description: str | None, kind: type[Any], start: Path | None, told: str) -> tuple[Any, ...]:
    """A training's command line: --out (which is made), --start (``told`` is its help), --device, and the recipe.

    Every field of the dataclass ``kind`` is an option. Returns out, start, device and recipe.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="checkpoints, logs and, at the end, the model folder")
    parser.add_argument("--start", type=Path, default=start, help=told)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for item in dataclasses.fields(kind):
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=type(item.default), default=item.default)
    arguments = vars(parser.parse_args())
    out, begin, device = arguments.pop("out"), arguments.pop("start"), torch.device(arguments.pop("device"))
    out.mkdir(parents=True, exist_ok=True)
    return out, begin, device, kind(**arguments)


def launch(train: Callable[..., None], processes: int, out: Path, *arguments: Any) -> None:
    """Run ``train(team, out, *arguments)`` in as many processes as asked for; one runs here."""
    if processes == 1:
        train(Team(), out, *arguments)
        return
    (out / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(_member, (train, processes, out, *arguments), processes)


def _member(rank: int, train: Callable[..., None], processes: int, out: Path, *arguments: Any) -> None:
    torch.set_num_threads(1)
    place = f"file://{out.resolve() / 'rendezvous'}"
    torch.distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=processes)
    train(Team(rank, processes), out, *arguments)


def rate_factor(progress: float, warm: float = 0.01, fall: float = 0.35) -> float:
    """Learning-rate factor: linear warm-up, level, and a cosine to zero over the last ``fall`` of the run.

    Level for long, so that a checkpoint from before the fall can go on under a larger budget as if it had always been.
    """
    falling = max(0.0, progress - (1 - fall)) / fall
    return min(1.0, progress / warm + 0.01) * 0.5 * (1 + math.cos(math.pi * min(falling, 1.0)))


def psnr(a: Tensor, b: Tensor) -> float:
    """Of images in [−1, 1], in dB."""
    return float(10 * torch.log10(4 / F.mse_loss(a.float(), b.float())))


def average_in(average: list[Tensor], parameters: list[nn.Parameter], step: int, ema: float) -> None:
    """Move the averaged weights toward the present ones; quickly at first."""
    decay = min(ema, (step + 1) / (step + 10))
    for mean, parameter in zip(average, parameters, strict=True):
        mean.lerp_(parameter.detach(), 1 - decay)


@torch.no_grad()
def adopt(parameters: list[nn.Parameter], average: list[Tensor]) -> None:
    """Put the averaged weights in place."""
    for parameter, mean in zip(parameters, average, strict=True):
        parameter.copy_(mean)


@contextlib.contextmanager
def precision(device: torch.device) -> Generator[None]:
    """bfloat16 on CUDA and on CPUs that compute in it, float32 elsewhere.

    On such a CPU attention is plain matrix products: torch's fused one goes back nine times slower in bfloat16.
    """
    on_cpu = computes_bfloat16(device)
    attention = sdpa_kernel(SDPBackend.MATH) if on_cpu else contextlib.nullcontext()
    with torch.autocast(device.type, torch.bfloat16, enabled=on_cpu or device.type == "cuda"), attention:
        yield


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def step_with(
    optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter], team: Team, progress: float
) -> float:
    """One step; returns the progress that all processes agree on."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    progress = team.average(parameters, progress)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return progress


def save(path: Path, step: int, used: float, average: list[Tensor], **parts: Any) -> None:
    """Write a checkpoint, whole or not at all."""
    state = {name: part.state_dict() for name, part in parts.items()}
    temporary = path.with_suffix(".tmp")
    torch.save({"step": step, "used": used, "average": average, **state}, temporary)
    temporary.replace(path)


def load(path: Path, **parts: Any) -> dict[str, Any]:
    """Read a checkpoint into ``parts``; returns all of it, or nothing if there is none."""
    if not path.exists():
        return {}
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state


def log(path: Path, step: int, used: float, **values: float) -> None:
    """One line of JSON to the log beside ``path`` and to the screen."""
    line = json.dumps({"step": step, "seconds": round(used, 1), **{k: round(v, 5) for k, v in values.items()}})
    with path.with_suffix(".log").open("a") as log:
        log.write(line + "\n")
    print(path.stem, line, flush=True)
