"""What the tests of all model families share: judging a picture, and folders that are broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.cameras import CameraBatch, orbit_cameras
from backend.errors import ModelError
from backend.guidance import GuidanceResult, Painter, load_guidance
from backend.guidance.text_guidance import TextGuidance
from backend.request import GuidanceSettings, LoadingSettings

CPU = torch.device("cpu")
SIDE = 16
PLAIN = GuidanceSettings(perp_neg="off", guidance_scale=7.5, timestep_range=(0.1, 0.9), timestep_anneal="none")
SMALL = LoadingSettings(image_size=SIDE)
Damage = Callable[[Path], object]
"""Breaks a model's folder."""


def load(
    folder: Path,
    settings: GuidanceSettings = PLAIN,
    negative: str = "ugly",
    prompt: str = "a red duck",
    **more: Any,
) -> Any:
    """A guidance of any family that reads a prompt, shown small pictures."""
    more.setdefault("loading", SMALL)
    guidance = load_guidance(str(folder), prompt, negative, settings, CPU, **more)
    assert isinstance(guidance, TextGuidance)
    assert isinstance(guidance, Painter)
    return guidance


def cameras(*azimuth: float, elevation: float = 10.0, distance: float = 3.0) -> CameraBatch:
    return orbit_cameras(list(azimuth), elevation, distance, 40.0)


def noise_pictures(views: int, side: int = 16) -> Tensor:
    """Pictures of noise [views, 3, side, side], always the same."""
    return torch.rand(views, 3, side, side, generator=torch.Generator().manual_seed(5))


def judge(guidance: Any, where: CameraBatch, seed: int = 0, side: int = 16, progress: float = 0.2) -> GuidanceResult:
    """What a guidance says of pictures of noise."""
    return guidance.gradient(noise_pictures(len(where), side), where, progress, torch.Generator().manual_seed(seed))


def check_one_clear_error(load: Callable[[], object], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Loading is one ModelError of one line that says what to do; the libraries' own noise is kept back."""
    with pytest.raises(ModelError, match=message) as caught:
        load()
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def cut(path: Path) -> None:
    """Cut a file in half, as a download that broke off."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def pickled(part: str) -> Damage:
    """Store a part's weights as a pickle alone."""

    def damage(folder: Path) -> None:
        path = next((folder / part).glob("*.safetensors"))
        torch.save(load_file(path), path.with_suffix(".bin"))
        path.unlink()

    return damage


def changed_weights(part: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Damage:
    """Write a part's weights anew, changed."""

    def damage(folder: Path) -> None:
        path = next((folder / part).glob("*.safetensors"))
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return damage


def without_weight(part: str, ending: str) -> Damage:
    """Take the first weight away whose name ends so."""

    def change(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        del weights[next(name for name in weights if name.endswith(ending))]
        return weights

    return changed_weights(part, change)
