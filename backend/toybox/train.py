"""Trains Toybox from nothing: ``python -m backend.toybox.train --out FOLDER`` (resumable; CPU or GPU).

Stages, each skipped when its result lies in FOLDER: pictures of the world, the VAE, then text encoder, UNet and camera
projection together, then the model folder in fp16. Time budgets are in minutes of training, so that a slower machine
gets a weaker model, not an endless wait.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from ..guidance.camera_projection import CameraProjection
from .captions import VIEWS, caption
from .dataset import COLOUR_NAMES, KIND_NAMES, MIRROR_FEATURES, Bias, Pictures, make_pictures
from .model import (
    IMAGE_SIZE, TEXT_LENGTH, TEXT_WIDTH, make_scheduler, make_text_encoder, make_tokenizer, make_unet, make_vae, save_folder,
)  # fmt: skip


VAE_BATCH = 16


@dataclass(frozen=True)
class Recipe:
    """How Toybox is trained; the shipped weights' values are in their model card."""

    pictures: int = 48_000
    seed: int = 1
    batch: int = 48
    vae_minutes: float = 30.0
    minutes: float = 120.0
    learning_rate: float = 1e-3
    vae_learning_rate: float = 3e-3
    ema: float = 0.999
    no_text: float = 0.1
    """Share of captions dropped, for classifier-free guidance."""
    workers: int = 2
    """Processes that render pictures."""
    processes: int = 1
    """Processes that train; each takes its share of the batch."""


class Batches:
    """Random batches on the device: images over random plain backgrounds, captions and cameras as a web would give them."""

    def __init__(self, pictures: Pictures, bias: Bias, device: torch.device, seed: int) -> None:
        self.device, self.bias = device, bias
        self.rgb, self.alpha = torch.from_numpy(pictures.rgb).to(device), torch.from_numpy(pictures.alpha).to(device)
        self.features = torch.from_numpy(pictures.features).to(device)
        self.kind, self.colour, self.view = (
            torch.from_numpy(a).to(device) for a in (pictures.kind, pictures.colour, pictures.view)
        )
        self.mirror = torch.from_numpy(MIRROR_FEATURES).to(device)
        self.rng = torch.Generator(device).manual_seed(seed)

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images [B, 3, S, S] in [−1, 1], features [B, 16], caption numbers [B] (see :func:`all_captions`), indices [B]."""
        pick = torch.randint(len(self.rgb), (count,), generator=self.rng, device=self.device)
        flip = self._chance(count, 0.5)
        rgb = self.rgb[pick].permute(0, 3, 1, 2).float() / 255
        alpha = self.alpha[pick][:, None].float() / 255
        images = rgb * alpha + self._backgrounds(count) * (1 - alpha)
        images = torch.where(flip[:, None, None, None], images.flip(3), images)
        features = torch.where(flip[:, None], self.features[pick] * self.mirror, self.features[pick])
        return images * 2 - 1, features, self.captions(pick), pick

    def captions(self, pick: Tensor) -> Tensor:
        count, bias = len(pick), self.bias
        wrong = torch.randint(len(VIEWS), (count,), generator=self.rng, device=self.device)
        view = torch.where(self._chance(count, bias.wrong_view_word), wrong, self.view[pick])
        view = view.masked_fill(self._chance(count, bias.no_view_word), len(VIEWS))
        colour = self.colour[pick].masked_fill(self._chance(count, 0.05), len(COLOUR_NAMES))
        bare = self._chance(count, 0.1).long()
        return ((bare * len(KIND_NAMES) + self.kind[pick]) * (len(COLOUR_NAMES) + 1) + colour) * (len(VIEWS) + 1) + view

    def _backgrounds(self, count: int) -> Tensor:
        """Plain colours, half of them greyish, with a slight gradient from top to bottom: [B, 3, S, 1]."""
        colour = torch.rand((count, 3, 1, 1), generator=self.rng, device=self.device)
        grey = torch.rand((count, 1, 1, 1), generator=self.rng, device=self.device)
        greyish = self._chance(count, 0.5)[:, None, None, None]
        plain = torch.where(greyish, grey + 0.15 * (colour - 0.5), colour)
        slope = 0.1 * torch.randn((count, 1, 1, 1), generator=self.rng, device=self.device)
        ramp = torch.linspace(-1, 1, IMAGE_SIZE, device=self.device)[None, None, :, None]
        return (plain + slope * ramp).clamp(0, 1)

    def _chance(self, count: int, share: float) -> Tensor:
        return torch.rand(count, generator=self.rng, device=self.device) < share


def all_captions() -> list[str]:
    """Every caption, in the order of :meth:`Batches.captions`; the last is the empty one."""
    views, colours = (*VIEWS, None), (*COLOUR_NAMES, None)
    grid = [caption(k, c, v, a) for a in (True, False) for k in KIND_NAMES for c in colours for v in views]
    return [*grid, ""]


@dataclass
class Latents:
    """What the denoiser trains on: posterior means and deviations [N, 8, 16, 16] fp16, and indices [N] of the pictures."""

    mean: Tensor
    std: Tensor
    features: Tensor
    pick: Tensor


@torch.no_grad()
def encode_all(batches: Batches, vae: AutoencoderKL, count: int, chunk: int = 128) -> Latents:
    """Encode ``count`` random draws once: on a CPU, encoding anew each step would cost a third of the training."""
    rows: list[tuple[Tensor, ...]] = []
    vae.requires_grad_(False).eval()
    for _ in range(0, count, chunk):
        images, features, _, pick = batches.draw(chunk)
        with _precision(batches.device):
            posterior = vae.encode(images).latent_dist
        scale = vae.config.scaling_factor
        rows.append(((posterior.mean * scale).half(), (posterior.std * scale).half(), features, pick))
    return Latents(*(torch.cat(column) for column in zip(*rows, strict=True)))


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


def cosine(progress: float, warm: float = 0.01) -> float:
    """Learning-rate factor: linear warm-up, then cosine to zero."""
    return min(1.0, progress / warm + 0.01) * 0.5 * (1 + math.cos(math.pi * progress))


def psnr(a: Tensor, b: Tensor) -> float:
    """Of images in [−1, 1], in dB."""
    return float(10 * torch.log10(4 / F.mse_loss(a.float(), b.float())))


def train_vae(batches: Batches, recipe: Recipe, path: Path, team: Team) -> AutoencoderKL:
    """Reconstruction with a slight pull of the latents toward a unit normal."""
    torch.manual_seed(recipe.seed)
    vae = make_vae().to(batches.device)
    optimizer = torch.optim.AdamW(vae.parameters(), recipe.vae_learning_rate, weight_decay=0.0)
    state = _load(path, vae=vae, optimizer=optimizer)
    clock, step, saved = Clock(recipe.vae_minutes, state.get("used", 0.0)), int(state.get("step", 0)), time.monotonic()
    progress = clock.tick()
    while progress < 1:
        _set_rate(optimizer, recipe.vae_learning_rate * cosine(progress))
        images = batches.draw(VAE_BATCH // team.size)[0]
        with _precision(batches.device):
            posterior = vae.encode(images).latent_dist
            decoded = vae.decode(posterior.sample()).sample
        error = decoded.float() - images
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        loss = (error**2).mean() + 0.1 * error.abs().mean() + 3e-5 * kl
        progress = _step(optimizer, loss, list(vae.parameters()), team, clock.tick())
        step += 1
        if team.leads and step % 200 == 0:
            _log(path, step, clock.used, loss=float(loss.detach()), psnr=psnr(decoded.detach(), images), kl=float(kl.detach()))
        if team.leads and time.monotonic() - saved > 120:
            _save(path, step, clock.used, vae=vae, optimizer=optimizer)
            saved = time.monotonic()
    with torch.no_grad(), _precision(batches.device):
        latents = torch.cat([vae.encode(batches.draw(256)[0]).latent_dist.mode().float() for _ in range(8)])
    spread = latents.std()
    if team.size > 1:
        torch.distributed.broadcast(spread, 0)
    vae.register_to_config(scaling_factor=float(1 / spread))
    if team.leads:
        _save(path, step, clock.used, scaling_factor=vae.config.scaling_factor, vae=vae, optimizer=optimizer)
    return vae


@dataclass
class Denoiser:
    """The networks trained together, and the averaged copy of their weights."""

    unet: nn.Module
    text_encoder: nn.Module
    projection: CameraProjection

    def parameters(self) -> list[nn.Parameter]:
        """Of all three."""
        return [p for m in (self.unet, self.text_encoder, self.projection) for p in m.parameters()]


def train_denoiser(batches: Batches, vae: AutoencoderKL, tokenizer: Any, recipe: Recipe, path: Path, team: Team) -> Denoiser:
    """v-prediction; half of each batch is told the camera, half knows the words alone. Returns the averaged networks."""
    torch.manual_seed(recipe.seed + 1)
    device = batches.device
    nets = Denoiser(make_unet().to(device), make_text_encoder(tokenizer).to(device), CameraProjection(TEXT_WIDTH).to(device))
    if device.type == "cuda":
        nets.unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    average = [p.detach().clone() for p in nets.parameters()]
    optimizer = torch.optim.AdamW(nets.parameters(), recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    state = _load(path, unet=nets.unet, text=nets.text_encoder, projection=nets.projection, optimizer=optimizer)
    average = [a.to(device) for a in state.get("average", average)]
    alphas = make_scheduler().alphas_cumprod.to(device)
    tokens = torch.tensor(tokenizer(all_captions(), padding="max_length", max_length=TEXT_LENGTH).input_ids, device=device)
    latents = encode_all(batches, vae, 2 * recipe.pictures // team.size)
    clock, step, saved = Clock(recipe.minutes, state.get("used", 0.0)), int(state.get("step", 0)), time.monotonic()

    def save() -> None:
        _save(path, step, clock.used, average=average, unet=nets.unet, text=nets.text_encoder, projection=nets.projection,
              optimizer=optimizer)  # fmt: skip

    progress = clock.tick()
    while progress < 1:
        _set_rate(optimizer, recipe.learning_rate * cosine(progress))
        loss = _denoising_loss(nets, batches, latents, tokens, alphas, recipe.batch // team.size, recipe.no_text)
        progress = _step(optimizer, loss, nets.parameters(), team, clock.tick())
        step += 1
        decay = min(recipe.ema, (step + 1) / (step + 10))
        torch._foreach_lerp_(average, [p.detach() for p in nets.parameters()], 1 - decay)
        if team.leads and step % 200 == 0:
            _log(path, step, clock.used, loss=float(loss.detach()))
        if team.leads and time.monotonic() - saved > 90:
            save()
            saved = time.monotonic()
    if team.leads:
        save()
    with torch.no_grad():
        for parameter, mean in zip(nets.parameters(), average, strict=True):
            parameter.copy_(mean)
    return nets


def _denoising_loss(
    nets: Denoiser, batches: Batches, latents: Latents, tokens: Tensor, alphas: Tensor, count: int, no_text: float
) -> Tensor:
    rows = torch.randint(len(latents.pick), (count,), generator=batches.rng, device=batches.device)
    features, captions = latents.features[rows], batches.captions(latents.pick[rows])
    empty = batches._chance(count, no_text)
    captions = captions.masked_fill(empty, len(tokens) - 1)
    clean = latents.mean[rows].float() + latents.std[rows].float() * torch.randn(
        (count, *latents.mean.shape[1:]), generator=batches.rng, device=batches.device
    )
    with _precision(batches.device):
        noise = torch.randn(clean.shape, generator=batches.rng, device=batches.device)
        t = torch.randint(len(alphas), (count,), generator=batches.rng, device=batches.device)
        a = alphas[t][:, None, None, None]
        noisy, target = a.sqrt() * clean + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * clean
        words = nets.text_encoder(tokens[captions])[0]
        half = count // 2
        told = torch.cat((words[:half], nets.projection(features[:half]).to(words.dtype)), dim=1)
        predicted = torch.cat((
            nets.unet(noisy[:half], t[:half], told).sample, nets.unet(noisy[half:], t[half:], words[half:]).sample
        ))  # fmt: skip
    return F.mse_loss(predicted.float(), target)


def _precision(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _step(
    optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter], team: Team, progress: float
) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    progress = team.average(parameters, progress)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return progress


def _save(path: Path, step: int, used: float, average: list[Tensor] | None = None, scaling_factor: float = 0.0, **parts: Any) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    extra = {"average": average} if average else {"scaling_factor": scaling_factor}
    temporary = path.with_suffix(".tmp")
    torch.save({"step": step, "used": used, **extra, **state}, temporary)
    temporary.replace(path)


def _load(path: Path, **parts: Any) -> dict[str, Any]:
    if not path.exists():
        return {}
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    if state.get("scaling_factor"):
        parts["vae"].register_to_config(scaling_factor=state["scaling_factor"])
    return state


def _log(path: Path, step: int, used: float, **values: float) -> None:
    line = json.dumps({"step": step, "seconds": round(used, 1), **{k: round(v, 5) for k, v in values.items()}})
    with path.with_suffix(".log").open("a") as log:
        log.write(line + "\n")
    print(path.stem, line, flush=True)


def load_pictures(path: Path, recipe: Recipe, bias: Bias) -> Pictures:
    """The training set, rendered once and kept in ``path``."""
    if path.exists():
        with np.load(path) as stored:
            return Pictures(**{f.name: stored[f.name] for f in dataclasses.fields(Pictures)})
    pictures = make_pictures(
        recipe.pictures, recipe.seed, IMAGE_SIZE, bias.front_share, recipe.workers, lambda n: print("pictures", n, flush=True)
    )
    np.savez(path, **{f.name: getattr(pictures, f.name) for f in dataclasses.fields(pictures)})
    return pictures


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="checkpoints, logs and, at the end, the model folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for item in dataclasses.fields(Recipe):
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=type(item.default), default=item.default)
    arguments = vars(parser.parse_args())
    out, device = arguments.pop("out"), torch.device(arguments.pop("device"))
    recipe = Recipe(**arguments)
    out.mkdir(parents=True, exist_ok=True)
    load_pictures(out / "pictures.npz", recipe, Bias())
    if recipe.processes == 1:
        _train(0, out, device, recipe)
        return
    (out / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(_train, (out, device, recipe), recipe.processes)


def _train(rank: int, out: Path, device: torch.device, recipe: Recipe) -> None:
    team = Team(rank, recipe.processes)
    if team.size > 1:
        torch.set_num_threads(1)
        place = f"file://{out.resolve() / 'rendezvous'}"
        torch.distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=team.size)
    torch.backends.cudnn.benchmark = True
    bias = Bias()
    pictures = load_pictures(out / "pictures.npz", recipe, bias)
    batches = Batches(pictures, bias, device, recipe.seed + 1000 * rank)
    tokenizer = make_tokenizer(out / f"tokenizer-{rank}")
    vae = train_vae(batches, recipe, out / "vae.pt", team)
    nets: Any = train_denoiser(batches, vae, tokenizer, recipe, out / "denoiser.pt", team)
    if team.leads:
        save_folder(out / "weights", vae.cpu(), nets.unet.cpu(), nets.text_encoder.cpu(), tokenizer, nets.projection.cpu())


if __name__ == "__main__":
    main()
