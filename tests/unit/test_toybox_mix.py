"""Between two models: each weight is, and nothing else of the first folder changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.toybox.mix import mix

PARTS = ("unet/diffusion_pytorch_model", "text_encoder/model", "camera_projection/diffusion_pytorch_model")


def folder(place: Path, value: float, width: int = 4) -> Path:
    for part in PARTS:
        file = place / f"{part}.safetensors"
        file.parent.mkdir(parents=True)
        save_file({"weight": torch.full((2, width), value, dtype=torch.float16)}, file)
    (place / "model_index.json").write_text(str(value), encoding="utf-8")
    return place


def test_weights_lie_between(tmp_path: Path) -> None:
    mix(folder(tmp_path / "a", 1.0), folder(tmp_path / "b", 3.0), 0.25, tmp_path / "out")
    for part in PARTS:
        weight = load_file(tmp_path / "out" / f"{part}.safetensors")["weight"]
        assert weight.dtype == torch.float16
        assert torch.equal(weight, torch.full((2, 4), 1.5, dtype=torch.float16))
    assert (tmp_path / "out" / "model_index.json").read_text(encoding="utf-8") == "1.0"


def test_what_does_not_match_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", 1.0)
    for second in (folder(tmp_path / "b", 3.0, width=5), tmp_path / "missing"):
        with pytest.raises(ValueError, match="not another training"):
            mix(first, second, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="no weights"):
        mix(tmp_path / "missing", first, 0.5, tmp_path / "out")
    with pytest.raises(ValueError, match="already"):
        mix(first, first, 0.5, first)
    with pytest.raises(ValueError, match="from 0 to 1"):
        mix(first, first, 46, tmp_path / "out")
