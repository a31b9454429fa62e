"""How good a novel-view folder is: ``python -m backend.toybox.view_evaluate FOLDER --out JSON --sheet PNG``.

Objects that training never showed, of known kinds, of no kind, and of kinds never seen: each is shown to the model from
one side, sampled from four others, and compared with what is truly there.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..cameras import CameraBatch, orbit_cameras
from ..guidance import ReferencePicture, load_view_guidance
from ..request import ViewGuidanceSettings
from .held_out import HELD_OUT_KINDS
from .instances import COMPOSITE, HELD_OUT_SEED, held_out
from .kinds import KINDS
from .shapes import Solids
from .view_dataset import DISTANCE, FIELD_OF_VIEW, before_white, lamp, picture

TURNS, ELEVATIONS = (60.0, 120.0, 180.0, -90.0), (10.0, 35.0, 15.0, 20.0)
"""Of the four views: azimuth from the reference's, and elevation."""
PAPER = 0.96
"""From this value on in every channel, a pixel counts as background."""
SUPERSAMPLE = 4

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """One object, as it is shown and as it is."""

    group: str
    """known, composite or unseen."""
    reference: Floats
    """[S, S, 4], sRGB with straight alpha."""
    camera: CameraBatch
    """Of the reference."""
    cameras: CameraBatch
    """The four views."""
    truth: Floats
    """[4, S, S, 4], the same."""
    solids: Solids
    """What it is made of."""


def subject(number: int, group: str, kind: str) -> Subject:
    """Object ``number`` of the held-out ones, seen from a random place before it."""
    solids, rng = held_out(number, kind).solids, np.random.default_rng((HELD_OUT_SEED, number, 1))
    azimuth, elevation = rng.uniform(-60, 60), rng.uniform(0, 30)
    camera = orbit_cameras(azimuth, elevation, DISTANCE, FIELD_OF_VIEW)
    cameras = orbit_cameras(azimuth + np.array(TURNS), np.array(ELEVATIONS), DISTANCE, FIELD_OF_VIEW)

    def seen(one: CameraBatch) -> Floats:
        return picture(solids, one, lamp(one), supersample=SUPERSAMPLE)

    truth = np.stack([seen(cameras[i : i + 1]) for i in range(len(cameras))])
    return Subject(group, seen(camera), camera, cameras, truth, solids)


def subjects(rounds: int) -> list[Subject]:
    """Every kind ``rounds`` times, and as many objects of no kind as there are kinds."""
    kinds = [("known", kind) for kind in KINDS] + [("unseen", kind) for kind in 4 * tuple(HELD_OUT_KINDS)]
    kinds += [("composite", COMPOSITE)] * (len(KINDS) // 2)
    return [subject(i, *kind) for i, kind in enumerate(kinds * rounds)]


@torch.no_grad()
def sampled(
    noise_of: Callable[[Tensor, Tensor], Tensor], alphas: Tensor, shape: tuple[int, ...], steps: int, seed: int
) -> Tensor:
    """DDIM (arXiv 2010.02502, η = 0) from noise to latents, for a denoiser ``noise_of(noisy, timesteps)``."""
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    times = torch.linspace(len(alphas) - 1, 0, steps + 1).long().tolist()
    for now, then in itertools.pairwise(times):
        a, b = alphas[now], alphas[then]
        noise = noise_of(latents, torch.full((shape[0],), now))
        clean = (latents - (1 - a).sqrt() * noise) / a.sqrt()
        latents = b.sqrt() * clean + (1 - b).sqrt() * noise if then else clean
    return latents


def samples(folder: Path, one: Subject, scale: float, steps: int) -> Floats:
    """What the model makes of the four views: [4, S, S, 3] in [0, 1]."""
    image = torch.from_numpy(one.reference).permute(2, 0, 1)
    shown = [ReferencePicture(image, one.camera)]
    guidance: Any = load_view_guidance(str(folder), shown, ViewGuidanceSettings(), torch.device("cpu"))
    condition = guidance.condition(one.cameras)
    networks = guidance.networks

    def noise_of(noisy: Tensor, timesteps: Tensor) -> Tensor:
        return guidance.guided_noise(noisy, timesteps, condition, scale)

    shape = (len(one.cameras), *condition.latents.shape[1:])
    latents = sampled(noise_of, networks.schedule.alphas_cumprod, shape, steps, 0)
    with torch.no_grad():
        made = networks.vae.decode(latents / networks.vae.config.scaling_factor).sample
    return (made / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def compared(made: Floats, truth: Floats) -> dict[str, float]:
    """PSNR in dB before white, IoU of silhouettes, and distance of mean colours, of views [V, S, S, 3] and [.., 4]."""
    wanted = before_white(truth)
    inside, found = truth[..., 3] > 0.5, made.min(-1) < PAPER
    colours = [
        float(np.linalg.norm(m[f].mean(0) - t[i].mean(0))) if f.any() else 1.0
        for m, t, f, i in zip(made, wanted, found, inside, strict=True)
    ]
    return {
        "psnr": float(-10 * np.log10(((made - wanted) ** 2).mean((1, 2, 3))).mean()),
        "silhouette_iou": float(((inside & found).sum((1, 2)) / (inside | found).sum((1, 2))).mean()),
        "colour_error": float(np.mean(colours)),
    }


def evaluate(folder: Path, sheet: Path | None, rounds: int, scale: float, steps: int) -> dict[str, Any]:
    """See the module."""
    rows: dict[str, list[dict[str, float]]] = {}
    strips: list[Floats] = []
    for one in subjects(rounds):
        made = samples(folder, one, scale, steps)
        rows.setdefault(one.group, []).append(compared(made, one.truth))
        pictures = (before_white(one.reference)[None], before_white(one.truth), made)
        strips.append(np.concatenate([view for block in pictures for view in block], axis=1))
    if sheet:
        Image.fromarray(np.rint(np.concatenate(strips) * 255).astype(np.uint8)).save(sheet)
    means = {
        group: {name: round(float(np.mean([row[name] for row in found])), 4) for name in found[0]}
        for group, found in rows.items()
    }
    return {"guidance_scale": scale, "steps": steps, "objects": {g: len(found) for g, found in rows.items()}, **means}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--rounds", type=int, default=1, help="objects a kind")
    parser.add_argument("--scale", type=float, default=2.0, help="guidance scale of the samples")
    parser.add_argument("--steps", type=int, default=20, help="of DDIM")
    arguments = parser.parse_args()
    report = json.dumps(
        evaluate(arguments.folder, arguments.sheet, arguments.rounds, arguments.scale, arguments.steps), indent=2
    )
    print(report)
    if arguments.out:
        arguments.out.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
