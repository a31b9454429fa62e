"""What a tiny VAE does to guidance's gradient: ``python -m benchmarks.tiny_vae MODEL TINY --out out/tiny_vae.json``.

The score distillation gradient by a rendered picture, once through the model's own encoder and once through the tiny
one, with the same noise at the same noise level: the cosine between them and the ratio of their norms, per picture.
Beside them

* the error of the latents, as a share of their deviation;
* the cosine where both encoders pass on the *same* gradient of the latents: what the tiny one's derivative alone does;
* the cosine of the model's own encoder with itself, its sample drawn anew: what no tiny VAE can be better than.

MODEL is a folder, a Hub id in the cache, or toybox; TINY an AutoencoderTiny's. ``--train MINUTES`` makes TINY first, by
pictures of Toybox's world, for models such as Toybox that have none.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers as untyped_diffusers
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from backend.cameras import CameraBatch, joined
from backend.devices import choose_device, described
from backend.guidance import load_guidance
from backend.guidance.conditioning import guided_noise
from backend.guidance.distillation import ScoreGradient, score_gradient
from backend.guidance.latents import judged, resized
from backend.guidance.loading import Loading, load_vae, quiet
from backend.guidance.model_folder import open_model
from backend.guidance.text_guidance import TextGuidance
from backend.picture.colour import linear_to_srgb
from backend.request import GuidanceSettings, LoadingSettings
from backend.threads import configure, prepare_environment
from backend.toybox.batches import Batches
from backend.toybox.captions import caption
from backend.toybox.dataset import Bias, make_pictures, sample_camera, sample_light
from backend.toybox.kinds import KINDS
from backend.toybox.raycast import render
from backend.toybox.world import COLOURS, Look, make_object

diffusers: Any = untyped_diffusers
LEVELS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.98)
"""Shares of the noise schedule."""
SIZE = 64
"""Side of the pictures, as the loop renders them; the model's own is theirs made larger."""
COLUMNS = ("cosine", "norm_ratio", "cosine_of_the_derivative", "cosine_of_another_sample")


@dataclass(frozen=True)
class Views:
    """Pictures [N, 3, 64, 64] (sRGB in [0, 1]) with their cameras, which name each one's prompt."""

    images: Tensor
    cameras: CameraBatch
    prompts: tuple[str, ...]


def make_views(count: int, seed: int) -> Views:
    """Objects of Toybox's world over plain backgrounds, each in a colour of its own, seen from anywhere."""
    rng, kinds, colours = np.random.default_rng(seed), tuple(KINDS), tuple(COLOURS)
    images: list[Tensor] = []
    cameras: list[CameraBatch] = []
    looks = [Look(kinds[i % len(kinds)], colours[i % len(colours)]) for i in range(count)]
    for look in looks:
        camera = sample_camera(rng, 0.4)
        (fx, fy), (cx, cy) = camera.focal[0].tolist(), camera.center[0].tolist()
        light = sample_light(rng, camera.position[0])
        linear, cover = render(make_object(look, rng), camera.camera_to_world[0], (fx, fy), (cx, cy), SIZE, light)
        shown = linear_to_srgb(np.clip(linear, 0, 1)) * cover[..., None] + rng.random(3) * (1 - cover[..., None])
        images.append(torch.from_numpy(shown.astype(np.float32)).permute(2, 0, 1))
        cameras.append(camera)
    which = dataclasses.replace(joined(cameras), own_prompt=np.arange(count))
    return Views(torch.stack(images), which, tuple(caption(look) for look in looks))


class Probe:
    """One model, and the gradients of its guidance by pictures through one encoder or another."""

    def __init__(self, model: str, views: Views, settings: GuidanceSettings, device: torch.device) -> None:
        first, *others = views.prompts
        found = load_guidance(model, first, "", settings, device, False, None, print, others)
        if not isinstance(found, TextGuidance) or found.vae is None:
            raise SystemExit(f"{model} has no VAE.")
        self.guidance, self.vae = found, found.vae
        self.views, self.device = views, device

    def latents(self, vae: Any, index: int, seed: int) -> tuple[Tensor, Tensor]:
        """One picture as a leaf [1, 3, 64, 64], and its latents through ``vae``."""
        self.guidance.vae = vae
        leaf = self.views.images[index : index + 1].to(self.device).requires_grad_()
        return leaf, self.guidance.encode(leaf, torch.Generator(self.device).manual_seed(seed))

    def score(self, latents: Tensor, index: int, level: float, seed: int) -> ScoreGradient:
        """Guidance's gradient of one picture's latents at a noise level."""
        guidance = self.guidance
        settings = dataclasses.replace(guidance.settings, timestep_range=(level, level), timestep_end=(level, level))
        with torch.inference_mode():
            condition = guidance.condition(self.views.cameras[index : index + 1])

            def predict(noisy: Tensor, times: Tensor) -> Tensor:
                return guided_noise(guidance.predict_noise, noisy, times, condition, settings)

            draws = torch.Generator(self.device).manual_seed(seed)
            return score_gradient(latents, predict, guidance.networks.schedule, settings, 0.0, draws)

    def compare(self, tiny: Any, index: int, level: float) -> dict[str, float]:
        """One picture at one noise level; see the module."""
        noise, seed = 1000 + index, 2 * index
        leaf, latents = self.latents(self.vae, index, seed)
        score = self.score(latents, index, level, noise)
        own = judged(leaf, latents, score, 0).gradient
        again_leaf, again = self.latents(self.vae, index, seed + 1)
        another = judged(again_leaf, again, self.score(again, index, level, noise), 0).gradient
        tiny_leaf, small = self.latents(tiny, index, seed)
        passed = judged(tiny_leaf, small, score, 0).gradient
        tiny_leaf, small = self.latents(tiny, index, seed)
        theirs = judged(tiny_leaf, small, self.score(small, index, level, noise), 0).gradient
        ratio = float(theirs.norm() / own.norm())
        return dict(zip(COLUMNS, (cosine(theirs, own), ratio, cosine(passed, own), cosine(another, own)), strict=True))

    def latent_error(self, tiny: Any) -> float:
        """Root mean square of the difference of the latents, over the deviation of the model's own."""
        count = len(self.views.images)
        with torch.no_grad():
            own = torch.cat([self.latents(self.vae, i, 2 * i)[1] for i in range(count)])
            theirs = torch.cat([self.latents(tiny, i, 2 * i)[1] for i in range(count)])
        return float((theirs - own).square().mean().sqrt() / own.std())

    def seconds(self, vae: Any, repeats: int) -> float:
        """Of one picture's way through ``vae`` and back: the median."""
        times: list[float] = []
        for _ in range(repeats + 1):
            started = time.perf_counter()
            leaf, latents = self.latents(vae, 0, 0)
            torch.autograd.grad(latents.sum(), leaf)
            if self.device.type != "cpu":
                torch.accelerator.synchronize(self.device)
            times.append(time.perf_counter() - started)
        return statistics.median(times[1:])


def cosine(a: Tensor, b: Tensor) -> float:
    """Between two gradients of any shape."""
    return float(functional.cosine_similarity(a.flatten(), b.flatten(), 0))


def measure(probe: Probe, tiny: Any, levels: tuple[float, ...] = LEVELS, repeats: int = 5) -> dict[str, Any]:
    """Everything, as plain JSON; the rows' figures are means over the pictures, and the lowest cosine."""
    rows: list[dict[str, float]] = []
    for level in levels:
        found = [probe.compare(tiny, index, level) for index in range(len(probe.views.images))]
        means = {name: round(statistics.fmean(each[name] for each in found), 4) for name in COLUMNS}
        rows.append({"level": level, **means, "lowest_cosine": round(min(each["cosine"] for each in found), 4)})
    own, theirs = probe.seconds(probe.vae, repeats), probe.seconds(tiny, repeats)
    times = {"own_seconds": round(own, 5), "tiny_seconds": round(theirs, 5)}
    return {
        "pictures": len(probe.views.images),
        "latent_error": round(probe.latent_error(tiny), 4),
        "rows": rows,
        **times,
    }


def make_tiny(vae: Any, width: int) -> Any:
    """An AutoencoderTiny for the latents of ``vae``, with random weights; like TAESD's its latents are scaled."""
    stages = len(vae.config.block_out_channels)
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=(width,) * stages,
        decoder_block_out_channels=(width,) * stages,
        num_encoder_blocks=(1, *(2,) * (stages - 1)),
        num_decoder_blocks=(1,) * stages,
        latent_channels=vae.config.latent_channels,
        scaling_factor=1.0,
        force_upcast=False,
    )


def train(
    guidance: TextGuidance,
    passed: Callable[[int], float],
    width: int,
    seed: int,
    tell: Callable[[str], None],
    pictures: int = 2000,
) -> Any:
    """An AutoencoderTiny whose encoder was trained, on pictures of Toybox's world, to give the VAE's mean latents.

    TAESD's decoder would be trained to put pictures together again; guidance has no use for one. ``passed`` says after
    each step, by their number, what share of the training is over.
    """
    vae, device = guidance.vae, guidance.device
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tiny = make_tiny(vae, width).to(device)
    batches = Batches(make_pictures(pictures, seed, SIZE, 0.4), Bias(), device, seed)
    optimizer = torch.optim.Adam(tiny.encoder.parameters(), lr=4e-3)
    shift, scale = getattr(vae.config, "shift_factor", None) or 0.0, vae.config.scaling_factor
    side = guidance.image_size[0]
    batch = max(1, 8 * SIZE**2 // side**2)
    steps, average = 0, 0.0
    while (done := passed(steps)) < 1:
        images = resized(batches.draw(batch)[0], (side, side))
        with torch.no_grad():
            wanted = (vae.encode(images.to(vae.dtype)).latent_dist.mean.float() - shift) * scale
        loss = functional.mse_loss(tiny.encode(images).latents, wanted)
        optimizer.param_groups[0]["lr"] = 4e-3 * 0.5 * (1 + np.cos(np.pi * done))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        average = loss.item() if steps == 1 else 0.98 * average + 0.02 * loss.item()
        if steps % 100 == 0:
            tell(f"step {steps}, mean square error {average:.4f}")
    tell(f"{steps} steps of {batch} pictures, mean square error {average:.4f}")
    return tiny.eval().requires_grad_(False)


def table(found: dict[str, Any]) -> str:
    """The figures for docs/models.md."""
    lines = [
        "| noise level | cosine | lowest | norm | derivative alone | VAE with itself |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        cells = [row["cosine"], row["lowest_cosine"], *(row[name] for name in COLUMNS[1:])]
        lines.append(f"| {row['level']} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    times = found["own_seconds"], found["tiny_seconds"]
    ends = f"Latents: error {found['latent_error']:.3f}. Forth and back: {times[0]:.4f} s and {times[1]:.4f} s."
    return "\n".join([*lines, "", ends])


def main() -> None:
    """Measure, print a table, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("tiny", help="an AutoencoderTiny's folder or Hub id; with --train the folder to write")
    parser.add_argument("--train", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--width", type=int, default=32, help="of the tiny encoder that is trained")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--scale", type=float, default=GuidanceSettings().guidance_scale, help="guidance scale")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/tiny_vae.json"))
    arguments = parser.parse_args()
    prepare_environment()
    device = choose_device(arguments.device)
    configure(device)
    settings = GuidanceSettings(guidance_scale=arguments.scale)
    probe = Probe(arguments.model, make_views(arguments.pictures, arguments.seed + 1), settings, device)
    if arguments.train:
        begun, budget = time.perf_counter(), 60 * arguments.train
        passed: Callable[[int], float] = lambda _: (time.perf_counter() - begun) / budget  # noqa: E731
        made = train(probe.guidance, passed, arguments.width, arguments.seed, print)
        made.save_pretrained(arguments.tiny, safe_serialization=True)
    loading = Loading(device, LoadingSettings(tiny_vae=arguments.tiny))
    folder = open_model(arguments.model)
    with quiet():
        tiny = load_vae(folder, None, probe.vae.dtype, loading, probe.vae.config.latent_channels)
    machine = {**described(device), "torch": torch.__version__, "threads": torch.get_num_threads()}
    found = {"machine": machine, "model": arguments.model, "tiny": arguments.tiny, "train_minutes": arguments.train}
    found |= measure(probe, tiny)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
