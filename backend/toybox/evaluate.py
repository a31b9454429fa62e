"""How good a Toybox folder is: ``python -m backend.toybox.evaluate FOLDER --out REPORT.json --sheet SHEET.png``.

Reconstruction of the VAE on pictures never seen, and samples scored by the judge: right kind, colour and view, asked by
words alone and, beside that, with the camera told.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from ..cameras import orbit_cameras
from ..guidance.camera_projection import SUBFOLDER, CameraProjection, camera_features
from .batches import Batches
from .captions import VIEWS, caption
from .dataset import COLOUR_NAMES, KIND_NAMES, make_pictures
from .judge import UNBIASED, Judge, kept_judge
from .model import IMAGE_SIZE
from .team import psnr
from .world import Look

VIEW_CAMERAS = {"front": (0.0, 12.0), "side": (90.0, 12.0), "back": (180.0, 12.0), "overhead": (0.0, 80.0)}


class Sampler:
    """DDIM samples of a Stable Diffusion folder, with or without the camera."""

    def __init__(self, folder: Path, steps: int = 25, guidance_scale: float = 3.0) -> None:
        self.pipeline: Any = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)
        self.projection = CameraProjection.from_pretrained(folder / SUBFOLDER)
        self.steps, self.scale = steps, guidance_scale

    @torch.no_grad()
    def words(self, prompts: list[str]) -> Tensor:
        """Words alone, by diffusers' own pipeline: images [B, 3, S, S] in [0, 1]."""
        rng = torch.Generator().manual_seed(0)
        made = self.pipeline(
            prompts,
            num_inference_steps=self.steps,
            guidance_scale=self.scale,
            output_type="pt",
            generator=rng,
            height=IMAGE_SIZE,
            width=IMAGE_SIZE,
        )
        return made.images

    @torch.no_grad()
    def camera(self, prompts: list[str], features: np.ndarray[Any, Any]) -> Tensor:
        """Words and cameras [B, 16]: images [B, 3, S, S] in [0, 1]; the unconditional branch knows neither."""
        pipe = self.pipeline
        scheduler: Any = DDIMScheduler.from_config(pipe.scheduler.config)
        scheduler.set_timesteps(self.steps)
        words, empty = pipe.encode_prompt(prompts, "cpu", 1, True)
        told = torch.cat((words, self.projection(torch.from_numpy(features))), 1)
        shape = (len(prompts), pipe.unet.config.in_channels, pipe.unet.config.sample_size, pipe.unet.config.sample_size)
        latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        for t in scheduler.timesteps:
            blind, seen = pipe.unet(latents, t, empty).sample, pipe.unet(latents, t, told).sample
            latents = scheduler.step(blind + self.scale * (seen - blind), t, latents).prev_sample
        return (pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)


def reconstruction(sampler: Sampler, count: int = 256) -> float:
    """PSNR in dB of the VAE on ``count`` pictures of a seed that training never saw."""
    batches = Batches(make_pictures(count, 999, IMAGE_SIZE, 0.0), UNBIASED, torch.device("cpu"), 999)
    images = batches.draw(count)[0]
    vae = sampler.pipeline.vae
    with torch.no_grad():
        return psnr(vae.decode(vae.encode(images).latent_dist.mode()).sample, images)


@dataclass(frozen=True)
class Question:
    """What one sample is asked for; indices as in :class:`.judge.Verdict`."""

    look: Look
    view: int

    @property
    def truth(self) -> tuple[int, int, int]:
        """Of kind, colour and view."""
        return KIND_NAMES.index(self.look.kind), COLOUR_NAMES.index(self.look.colour or ""), self.view


def questions(colours: int) -> list[Question]:
    """Every kind × ``colours`` colours × view."""
    return [
        Question(Look(kind, COLOUR_NAMES[(k + 3 * c) % len(COLOUR_NAMES)]), v)
        for k, kind in enumerate(KIND_NAMES)
        for c in range(colours)
        for v in range(len(VIEWS))
    ]


def score(images: Tensor, asked: list[Question], judge: Judge) -> dict[str, Any]:
    """Shares of right answers of ``images`` [B, 3, S, S] in [0, 1], view by view too."""
    verdict, truth = judge.verdict(images * 2 - 1), torch.tensor([q.truth for q in asked]).T
    guess = {name: getattr(verdict, name).argmax(1) for name in ("kind", "colour", "view")}
    right = {name: guess[name] == truth[i] for i, name in enumerate(guess)}
    result: dict[str, Any] = {name: float(hit.float().mean()) for name, hit in right.items()}
    result["view_by_word"] = {v: float(right["view"][truth[2] == i].float().mean()) for i, v in enumerate(VIEWS)}
    asked_back = truth[2] == VIEWS.index("back")
    result["front_when_asked_for_back"] = float((guess["view"][asked_back] == 0).float().mean())
    result["kind_by_kind"] = {
        name: float(right["kind"][truth[0] == i].float().mean()) for i, name in enumerate(KIND_NAMES)
    }
    return result


def evaluate(folder: Path, judge_file: Path, sheet: Path | None, colours: int, scale: float) -> dict[str, Any]:
    """See the module."""
    sampler = Sampler(folder, guidance_scale=scale)
    judge, skill = kept_judge(judge_file)
    asked = questions(colours)
    prompts = [caption(q.look, VIEWS[q.view]) for q in asked]
    angles = np.array([VIEW_CAMERAS[VIEWS[q.view]] for q in asked])
    features = camera_features(orbit_cameras(angles[:, 0], angles[:, 1], 3.0, 40.0))
    report: dict[str, Any] = {"vae_psnr_db": reconstruction(sampler), "judge_accuracy": skill, "samples": len(asked)}
    report["guidance_scale"] = scale
    made = {"words": sampler.words(prompts), "camera": sampler.camera(prompts, features)}
    report |= {name: score(images, asked, judge) for name, images in made.items()}
    if sheet:
        _save_sheet(sheet, list(made.values()), colours)
    return report


def _save_sheet(path: Path, pictures: list[Tensor], colours: int) -> None:
    """A row per kind, first colour only: the four views by words, then the four views by camera."""
    rows: list[np.ndarray[Any, Any]] = []
    for kind in range(len(KIND_NAMES)):
        start = kind * colours * len(VIEWS)
        row = torch.cat([image for images in pictures for image in images[start : start + len(VIEWS)]], dim=2)
        rows.append(row.permute(1, 2, 0).numpy())
    Image.fromarray(np.rint(np.concatenate(rows) * 255).astype(np.uint8)).save(path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--judge", type=Path, default=Path("out/judge.pt"), help="trained and kept there if missing")
    parser.add_argument("--colours", type=int, default=3, help="colours per kind and view")
    parser.add_argument("--scale", type=float, default=5.0, help="guidance scale of the samples")
    arguments = parser.parse_args()
    report = json.dumps(
        evaluate(arguments.folder, arguments.judge, arguments.sheet, arguments.colours, arguments.scale), indent=2
    )
    print(report)
    if arguments.out:
        arguments.out.write_text(report + "\n")


if __name__ == "__main__":
    main()
