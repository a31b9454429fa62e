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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from ..guidance.camera_projection import CameraProjection
from .captions import VIEWS, caption
from .dataset import COLOUR_NAMES, KIND_NAMES, MIRROR_FEATURES, Bias, Pictures, make_pictures
from .model import (
    IMAGE_SIZE, TEXT_LENGTH, TEXT_WIDTH, make_scheduler, make_text_encoder, make_tokenizer, make_unet, make_vae, save_folder,
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How Toybox is trained; the shipped weights' values are in their model card."""

    pictures: int = 60_000
    seed: int = 1
    batch: int = 64
    vae_minutes: float = 30.0
    minutes: float = 120.0
    learning_rate: float = 6e-4
    vae_learning_rate: float = 8e-4
    ema: float = 0.9995
    no_text: float = 0.1
    """Share of captions dropped, for classifier-free guidance."""
    workers: int = 2


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
        return images * 2 - 1, features, self._captions(pick), pick

    def _captions(self, pick: Tensor) -> Tensor:
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
    """Every caption, in the order of :meth:`Batches._captions`; the last is the empty one."""
    views, colours = (*VIEWS, None), (*COLOUR_NAMES, None)
    grid = [caption(k, c, v, a) for a in (True, False) for k in KIND_NAMES for c in colours for v in views]
    return [*grid, ""]


class Clock:
    """Yields progress in [0, 1) until ``minutes`` of training are used, whatever was used before a resume."""

    def __init__(self, minutes: float, used: float = 0.0) -> None:
        self.budget, self.used = minutes * 60, used

    def __iter__(self) -> Iterator[float]:
        last = time.monotonic()
        while self.used < self.budget:
            yield self.used / self.budget
            now = time.monotonic()
            self.used += now - last
            last = now


def cosine(progress: float, warm: float = 0.01) -> float:
    """Learning-rate factor: linear warm-up, then cosine to zero."""
    return min(1.0, progress / warm + 0.01) * 0.5 * (1 + math.cos(math.pi * progress))


def psnr(a: Tensor, b: Tensor) -> float:
    """Of images in [−1, 1], in dB."""
    return float(10 * torch.log10(4 / F.mse_loss(a.float(), b.float())))


def train_vae(batches: Batches, recipe: Recipe, path: Path) -> AutoencoderKL:
    """Reconstruction with a slight pull of the latents toward a unit normal."""
    torch.manual_seed(recipe.seed)
    vae = make_vae().to(batches.device)
    optimizer = torch.optim.AdamW(vae.parameters(), recipe.vae_learning_rate, weight_decay=0.0)
    state = _load(path, vae=vae, optimizer=optimizer)
    clock, step, saved = Clock(recipe.vae_minutes, state.get("used", 0.0)), int(state.get("step", 0)), time.monotonic()
    for progress in clock:
        _set_rate(optimizer, recipe.vae_learning_rate * cosine(progress))
        images = batches.draw(max(recipe.batch // 4, 16))[0]
        with _precision(batches.device):
            posterior = vae.encode(images).latent_dist
            decoded = vae.decode(posterior.sample()).sample
        error = decoded.float() - images
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        loss = (error**2).mean() + 0.1 * error.abs().mean() + 3e-5 * kl
        _step(optimizer, loss, vae)
        step += 1
        if step % 200 == 0:
            _log(path, step, clock.used, loss=float(loss), psnr=psnr(decoded, images), kl=float(kl))
        if time.monotonic() - saved > 120:
            _save(path, step, clock.used, vae=vae, optimizer=optimizer)
            saved = time.monotonic()
    with torch.no_grad(), _precision(batches.device):
        latents = torch.cat([vae.encode(batches.draw(256)[0]).latent_dist.mode().float() for _ in range(8)])
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
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


def train_denoiser(batches: Batches, vae: AutoencoderKL, tokenizer: Any, recipe: Recipe, path: Path) -> Denoiser:
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
    vae.requires_grad_(False).eval()
    clock, step, saved = Clock(recipe.minutes, state.get("used", 0.0)), int(state.get("step", 0)), time.monotonic()

    def save() -> None:
        _save(path, step, clock.used, average=average, unet=nets.unet, text=nets.text_encoder, projection=nets.projection,
              optimizer=optimizer)  # fmt: skip

    for progress in clock:
        _set_rate(optimizer, recipe.learning_rate * cosine(progress))
        loss = _denoising_loss(nets, batches, vae, tokens, alphas, recipe)
        _step(optimizer, loss, *nets.parameters())
        step += 1
        decay = min(recipe.ema, (step + 1) / (step + 10))
        torch._foreach_lerp_(average, [p.detach() for p in nets.parameters()], 1 - decay)
        if step % 200 == 0:
            _log(path, step, clock.used, loss=float(loss))
        if time.monotonic() - saved > 90:
            save()
            saved = time.monotonic()
    save()
    with torch.no_grad():
        for parameter, mean in zip(nets.parameters(), average, strict=True):
            parameter.copy_(mean)
    return nets


def _denoising_loss(
    nets: Denoiser, batches: Batches, vae: AutoencoderKL, tokens: Tensor, alphas: Tensor, recipe: Recipe
) -> Tensor:
    images, features, captions, _ = batches.draw(recipe.batch)
    empty = batches._chance(recipe.batch, recipe.no_text)
    captions = captions.masked_fill(empty, len(tokens) - 1)
    with _precision(images.device):
        with torch.no_grad():
            posterior = vae.encode(images).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=batches.rng, device=images.device)
            clean = (posterior.mean + posterior.std * noise).float() * vae.config.scaling_factor
        noise = torch.randn(clean.shape, generator=batches.rng, device=images.device)
        t = torch.randint(len(alphas), (recipe.batch,), generator=batches.rng, device=images.device)
        a = alphas[t][:, None, None, None]
        noisy, target = a.sqrt() * clean + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * clean
        words = nets.text_encoder(tokens[captions])[0]
        half = recipe.batch // 2
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


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, *parts: nn.Module | nn.Parameter) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for part in parts for p in (part.parameters() if isinstance(part, nn.Module) else [part])]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


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
    recipe, bias = Recipe(**arguments), Bias()
    out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = True
    batches = Batches(load_pictures(out / "pictures.npz", recipe, bias), bias, device, recipe.seed)
    tokenizer = make_tokenizer(out / "tokenizer")
    vae = train_vae(batches, recipe, out / "vae.pt")
    nets: Any = train_denoiser(batches, vae, tokenizer, recipe, out / "denoiser.pt")
    save_folder(out / "weights", vae.cpu(), nets.unet.cpu(), nets.text_encoder.cpu(), tokenizer, nets.projection.cpu())


if __name__ == "__main__":
    main()
