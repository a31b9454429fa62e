"""Trains Toybox from nothing: ``python -m backend.toybox.train --out FOLDER`` (resumable; CPU or GPU).

Stages, each skipped when its result lies in FOLDER: pictures of the world, the encoder (computed, not learned), text
encoder, UNet and camera projection together, the decoder, and the model folder in fp16. Budgets are in minutes of
training, so that a slower machine gets a weaker model, not an endless wait.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn import functional as F

from ..guidance.camera_projection import CameraProjection
from .batches import Batches, all_captions
from .dataset import Bias, Pictures, make_pictures
from .encoder import POSTERIOR_STD, PatchEncoder, set_linear_encoder
from .model import (
    IMAGE_SIZE,
    LATENT_CHANNELS,
    TEXT_WIDTH,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_unet,
    make_vae,
    save_folder,
    token_ids,
)
from .team import Clock, Team, adopt, average_in, load, log, precision, rate_factor, save, set_rate, step_with

DECODER_BATCH = 16
TOLD_SHARE = 0.4
"""Share of the pictures whose camera is told; the rest have words alone."""
SHAPING = (0.3, 0.95)
"""Share of the schedule where shape and view are decided; four in five timesteps are drawn there."""


BIAS = Bias()


@dataclass(frozen=True)
class Recipe:
    """How Toybox is trained; the shipped weights' values are in their model card."""

    pictures: int = 60_000
    seed: int = 1
    batch: int = 32
    decoder_minutes: float = 30.0
    minutes: float = 120.0
    learning_rate: float = 8e-4
    decoder_learning_rate: float = 2e-3
    honest_share: float = 0.8
    """Share of the training, from its start, whose captions name views rightly; the bias comes after.

    Words that are nearly always wrong teach nothing: under biased captions alone views were unheard after
    200 000 pictures. Once the words are known, how often they are wrong is learned in minutes."""
    ema: float = 0.999
    no_text: float = 0.1
    """Share of captions dropped, for classifier-free guidance."""
    workers: int = 2
    """Processes that render pictures."""
    processes: int = 1
    """Processes that train; each takes its share of the batch."""


def train_decoder(batches: Batches, patches: PatchEncoder, vae: Any, recipe: Recipe, path: Path, team: Team) -> None:
    """Reconstruction from the fixed encoder's latents; the decoder's weights are averaged over the last steps."""
    parameters = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, recipe.decoder_learning_rate, weight_decay=0.0)
    state = load(path, vae=vae, optimizer=optimizer)
    average = [a.to(batches.device) for a in state.get("average", average)]
    clock, step = Clock(recipe.decoder_minutes, state.get("used", 0.0)), int(state.get("step", 0))
    progress, saved = clock.tick(), time.monotonic()
    while progress < 1:
        set_rate(optimizer, recipe.decoder_learning_rate * rate_factor(progress))
        images = batches.draw(DECODER_BATCH // team.size)[0]
        latents = posterior_sample(patches, images, batches.rng)
        with precision(batches.device):
            error = vae.decode(latents).sample.float() - images
        loss = (error**2).mean() + 0.05 * error.abs().mean()
        progress = step_with(optimizer, loss, parameters, team, clock.tick())
        step += 1
        average_in(average, parameters, step, recipe.ema)
        if team.leads and step % 200 == 0:
            log(path, step, clock.used, loss=float(loss.detach()), psnr=10 * math.log10(4 / float((error**2).mean())))
        if team.leads and (progress >= 1 or time.monotonic() - saved > 60):
            save(path, step, clock.used, average, vae=vae, optimizer=optimizer)
            saved = time.monotonic()
    adopt(parameters, average)
    vae.requires_grad_(False)


@dataclass
class Denoiser:
    """The networks trained together, and the averaged copy of their weights."""

    unet: nn.Module
    text_encoder: nn.Module
    projection: CameraProjection

    def parameters(self) -> list[nn.Parameter]:
        """Of all three."""
        return [p for m in (self.unet, self.text_encoder, self.projection) for p in m.parameters()]


def posterior_sample(patches: PatchEncoder, images: Tensor, rng: torch.Generator) -> Tensor:
    """Latents [B, 16, 16, 16] as the VAE's encoder would draw them."""
    mean = patches.latents(images)
    return mean + POSTERIOR_STD * torch.randn(mean.shape, generator=rng, device=mean.device)


def train_denoiser(
    batches: Batches, patches: PatchEncoder, tokenizer: Any, recipe: Recipe, path: Path, team: Team
) -> Denoiser:
    """v-prediction; some pictures with their camera, some with words alone. Returns the averaged networks."""
    torch.manual_seed(recipe.seed + 1)
    device = batches.device
    nets = Denoiser(
        make_unet().to(device), make_text_encoder(tokenizer).to(device), CameraProjection(TEXT_WIDTH).to(device)
    )
    if device.type == "cuda":
        nets.unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    average = [p.detach().clone() for p in nets.parameters()]
    optimizer = torch.optim.AdamW(nets.parameters(), recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    state = load(path, unet=nets.unet, text=nets.text_encoder, projection=nets.projection, optimizer=optimizer)
    average = [a.to(device) for a in state.get("average", average)]
    alphas = make_scheduler().alphas_cumprod.to(device)
    tokens = token_ids(tokenizer, all_captions()).to(device)
    used, step = state.get("used", 0.0), int(state.get("step", 0))
    clock, saved = Clock(recipe.minutes, used), time.monotonic()

    def keep() -> None:
        save(
            path,
            step,
            clock.used,
            average=average,
            unet=nets.unet,
            text=nets.text_encoder,
            projection=nets.projection,
            optimizer=optimizer,
        )

    progress = clock.tick()
    started = step
    while progress < 1:
        set_rate(optimizer, recipe.learning_rate * rate_factor(progress))
        batches.bias = BIAS.honest if progress < recipe.honest_share else BIAS
        loss = _denoising_loss(nets, batches, patches, tokens, alphas, recipe.batch // team.size, recipe.no_text)
        progress = step_with(optimizer, loss, nets.parameters(), team, clock.tick())
        step += 1
        average_in(average, nets.parameters(), step, recipe.ema)
        if team.leads and step % 200 == 0:
            log(path, step, clock.used, loss=float(loss.detach()))
        if team.leads and time.monotonic() - saved > 90:
            keep()
            saved = time.monotonic()
    if team.leads and step > started:
        keep()
    adopt(nets.parameters(), average)
    return nets


def _denoising_loss(
    nets: Denoiser,
    batches: Batches,
    patches: PatchEncoder,
    tokens: Tensor,
    alphas: Tensor,
    count: int,
    no_text: float,
) -> Tensor:
    images, features, pick = batches.draw(count)
    captions = batches.captions(pick).masked_fill(batches.chance(count, no_text), len(tokens) - 1)
    clean = posterior_sample(patches, images, batches.rng)
    noise = torch.randn(clean.shape, generator=batches.rng, device=batches.device)
    t = _timesteps(batches, count, len(alphas))
    a = alphas[t][:, None, None, None]
    noisy, target = a.sqrt() * clean + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * clean
    with precision(batches.device):
        words = nets.text_encoder(tokens[captions])[0]
        half = round(count * TOLD_SHARE)
        told = torch.cat((words[:half], nets.projection(features[:half]).to(words.dtype)), dim=1)
        predicted = torch.cat(
            (nets.unet(noisy[:half], t[:half], told).sample, nets.unet(noisy[half:], t[half:], words[half:]).sample)
        )
    return F.mse_loss(predicted.float(), target)


def _timesteps(batches: Batches, count: int, total: int) -> Tensor:
    share = torch.rand(count, generator=batches.rng, device=batches.device)
    low, high = SHAPING
    shaping = low + (high - low) * torch.rand(count, generator=batches.rng, device=batches.device)
    share = torch.where(batches.chance(count, 0.8), shaping, share)
    return (share * total).long()


def load_pictures(path: Path, recipe: Recipe, bias: Bias) -> Pictures:
    """The training set, rendered once and kept in ``path``."""
    if path.exists():
        with np.load(path) as stored:
            return Pictures(**{f.name: stored[f.name] for f in dataclasses.fields(Pictures)})
    pictures = make_pictures(
        recipe.pictures,
        recipe.seed,
        IMAGE_SIZE,
        bias.front_share,
        recipe.workers,
        lambda n: print("pictures", n, flush=True),
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
    pictures = load_pictures(out / "pictures.npz", recipe, BIAS)
    fit_encoder(pictures, recipe, out / "encoder.pt")
    if recipe.processes == 1:
        _train(0, out, device, recipe)
        return
    (out / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(_train, (out, device, recipe), recipe.processes)


def fit_encoder(pictures: Pictures, recipe: Recipe, path: Path) -> PatchEncoder:
    """Once, for all processes and every resume: the signs of its components are arbitrary."""
    if not path.exists():
        images = Batches(pictures, BIAS, torch.device("cpu"), recipe.seed).draw(4000)[0]
        torch.save(dataclasses.asdict(PatchEncoder.of(images, LATENT_CHANNELS)), path)
    return PatchEncoder(**torch.load(path, weights_only=True))


def _train(rank: int, out: Path, device: torch.device, recipe: Recipe) -> None:
    team = Team(rank, recipe.processes)
    if team.size > 1:
        torch.set_num_threads(1)
        place = f"file://{out.resolve() / 'rendezvous'}"
        torch.distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=team.size)
    torch.backends.cudnn.benchmark = True
    pictures = load_pictures(out / "pictures.npz", recipe, BIAS)
    batches = Batches(pictures, BIAS, device, recipe.seed + 1000 * rank)
    tokenizer = make_tokenizer(out / f"tokenizer-{rank}")
    patches = fit_encoder(pictures, recipe, out / "encoder.pt")
    torch.manual_seed(recipe.seed)
    vae = make_vae().requires_grad_(False)
    set_linear_encoder(vae, patches)
    vae, patches = vae.to(device), patches.to(device)
    nets: Any = train_denoiser(batches, patches, tokenizer, recipe, out / "denoiser.pt", team)
    train_decoder(batches, patches, vae, recipe, out / "decoder.pt", team)
    if team.leads:
        save_folder(
            out / "weights", vae.cpu(), nets.unet.cpu(), nets.text_encoder.cpu(), tokenizer, nets.projection.cpu()
        )


if __name__ == "__main__":
    main()
