"""Trains Toybox: ``python -m backend.toybox.train --out FOLDER`` (resumable; CPU or GPU).

Stages, each skipped when its result lies in FOLDER: pictures of the world, the encoder (computed, not learned), text
encoder, UNet and camera projection together, the decoder, and the model folder in fp16. Budgets are in minutes of
training, so that a slower machine gets a weaker model, not an endless wait. ``--start MODEL`` goes on from a model's
folder instead of from nothing, and keeps its encoder.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from ..guidance.camera_projection import SUBFOLDER, CameraProjection
from .batches import Batches, all_captions
from .dataset import Bias, Pictures, make_pictures
from .diffusion import noised, posterior_sample, shaping_timesteps
from .encoder import PatchEncoder, set_linear_encoder
from .model import (
    IMAGE_SIZE,
    LATENT_CHANNELS,
    TEXT_WIDTH,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_unet,
    make_vae,
    read_text_encoder,
    save_folder,
    token_ids,
)
from .team import Course, Team, fit, launch, precision, read_command

DECODER_BATCH = 16
TOLD_SHARE = 0.4
"""Share of the pictures whose camera is told; the rest have words alone."""
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
    honest_share: float = 0.86
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

    def loss_at(_: float) -> tuple[Tensor, dict[str, Tensor]]:
        images = batches.draw(DECODER_BATCH // team.size)[0]
        latents = posterior_sample(patches, images, batches.rng)
        with precision(batches.device):
            error = vae.decode(latents).sample.float() - images
        square = (error**2).mean()
        return square + 0.05 * error.abs().mean(), {"psnr": 10 * (4 / square.detach()).log10()}

    course = Course(recipe.decoder_minutes, recipe.decoder_learning_rate, recipe.ema, save_every=60)
    fit(loss_at, parameters, {"vae": vae}, course, path, team)
    vae.requires_grad_(False)


@dataclass
class Denoiser:
    """The networks trained together."""

    unet: nn.Module
    text_encoder: nn.Module
    projection: CameraProjection

    @property
    def parts(self) -> dict[str, nn.Module]:
        """By the names of their states in a checkpoint."""
        return {"unet": self.unet, "text": self.text_encoder, "projection": self.projection}

    def parameters(self) -> list[nn.Parameter]:
        """Of all three."""
        return [p for m in self.parts.values() for p in m.parameters()]


def make_denoiser(tokenizer: Any, start: Path | None, seed: int) -> Denoiser:
    """New networks, or those of the model folder ``start``, in single precision."""
    torch.manual_seed(seed)
    if start is None:
        return Denoiser(make_unet(), make_text_encoder(tokenizer), CameraProjection(TEXT_WIDTH))
    unet: Any = UNet2DConditionModel.from_pretrained(start / "unet", torch_dtype=torch.float32)
    text = read_text_encoder(start, tokenizer)
    projection = CameraProjection.from_pretrained(start / SUBFOLDER)
    return Denoiser(unet, text, projection)


def train_denoiser(
    batches: Batches, patches: PatchEncoder, nets: Denoiser, tokenizer: Any, recipe: Recipe, path: Path, team: Team
) -> None:
    """v-prediction; some pictures with their camera, some with words alone. Leaves averaged weights in ``nets``."""
    torch.manual_seed(recipe.seed + 1)
    device = batches.device
    for part in nets.parts.values():
        part.to(device).train()
    if device.type == "cuda":
        nets.unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    alphas = make_scheduler().alphas_cumprod.to(device)
    tokens = token_ids(tokenizer, all_captions()).to(device)

    def loss_at(progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        batches.bias = BIAS.honest if progress < recipe.honest_share else BIAS
        count = recipe.batch // team.size
        return _denoising_loss(nets, batches, patches, tokens, alphas, count, recipe.no_text), {}

    course = Course(recipe.minutes, recipe.learning_rate, recipe.ema, (0.9, 0.99), weight_decay=0.01)
    fit(loss_at, nets.parameters(), nets.parts, course, path, team)


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
    t = shaping_timesteps(count, len(alphas), batches.rng)
    noisy, target = noised(clean, t, alphas, batches.rng)
    with precision(batches.device):
        words = nets.text_encoder(tokens[captions])[0]
        half = round(count * TOLD_SHARE)
        told = torch.cat((words[:half], nets.projection(features[:half]).to(words.dtype)), dim=1)
        predicted = torch.cat(
            (nets.unet(noisy[:half], t[:half], told).sample, nets.unet(noisy[half:], t[half:], words[half:]).sample)
        )
    return F.mse_loss(predicted.float(), target)


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
    told = "the folder of a model to train further, as backend/toybox/weights"
    out, start, device, recipe = read_command(__doc__, Recipe, None, told)
    pictures = load_pictures(out / "pictures.npz", recipe, BIAS)
    if start is None:
        fit_encoder(pictures, recipe, out / "encoder.pt")
    launch(_train, recipe.processes, out, start, device, recipe)


def fit_encoder(pictures: Pictures, recipe: Recipe, path: Path) -> PatchEncoder:
    """Once, for all processes and every resume: the signs of its components are arbitrary."""
    if not path.exists():
        images = Batches(pictures, BIAS, torch.device("cpu"), recipe.seed).draw(4000)[0]
        torch.save(dataclasses.asdict(PatchEncoder.of(images, LATENT_CHANNELS)), path)
    return PatchEncoder(**torch.load(path, weights_only=True))


def _autoencoder(pictures: Pictures, recipe: Recipe, out: Path, start: Path | None) -> tuple[Any, PatchEncoder]:
    """The VAE, and what its encoder computes."""
    if start is not None:
        kept: Any = AutoencoderKL.from_pretrained(start / "vae", torch_dtype=torch.float32)
        return kept.requires_grad_(False), PatchEncoder.read(kept)
    torch.manual_seed(recipe.seed)
    vae, patches = make_vae().requires_grad_(False), fit_encoder(pictures, recipe, out / "encoder.pt")
    set_linear_encoder(vae, patches)
    return vae, patches


def _train(team: Team, out: Path, start: Path | None, device: torch.device, recipe: Recipe) -> None:
    torch.backends.cudnn.benchmark = True
    pictures = load_pictures(out / "pictures.npz", recipe, BIAS)
    batches = Batches(pictures, BIAS, device, recipe.seed + 1000 * team.rank)
    tokenizer = make_tokenizer(out / f"tokenizer-{team.rank}")
    vae, patches = _autoencoder(pictures, recipe, out, start)
    vae, patches = vae.to(device), patches.to(device)
    nets = make_denoiser(tokenizer, start, recipe.seed + 1)
    train_denoiser(batches, patches, nets, tokenizer, recipe, out / "denoiser.pt", team)
    train_decoder(batches, patches, vae, recipe, out / "decoder.pt", team)
    if team.leads:
        save_folder(
            out / "weights", vae.cpu(), nets.unet.cpu(), nets.text_encoder.cpu(), tokenizer, nets.projection.cpu()
        )


if __name__ == "__main__":
    main()
