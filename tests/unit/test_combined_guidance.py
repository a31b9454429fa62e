"""Guidances together: the weighted sum, in order, and of the real families."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backend.cameras import CameraBatch
from backend.errors import RequestError
from backend.guidance import CombinedGuidance, GuidanceResult, WeightedGuidance
from backend.request import ViewGuidanceSettings
from tests.unit import tiny_model, tiny_zero123
from tests.unit.tiny_zero123 import cameras


@dataclass
class Drawn:
    """A stand-in whose gradient is drawn, so that the order of drawing shows."""

    calls: list[float] = field(default_factory=list[float])

    def gradient(
        self, images: Tensor, cameras: CameraBatch, progress: float, generator: torch.Generator
    ) -> GuidanceResult:
        self.calls.append(progress)
        gradient = torch.randn(images.shape, generator=generator)
        return GuidanceResult(gradient, 2.0, {"timestep": 7.0, "evaluations": 3.0})


def judge(guidance: Any, seed: int = 0) -> GuidanceResult:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    return guidance.gradient(images, cameras(30.0, 120.0), 0.25, torch.Generator().manual_seed(seed))


def test_the_sum_is_weighted_and_drawn_in_order():
    first, second = Drawn(), Drawn()
    parts = {"picture": WeightedGuidance(first, 1.0), "prompt": WeightedGuidance(second, 0.5)}
    result = judge(CombinedGuidance(parts))
    draws = torch.Generator().manual_seed(0)
    one, two = (torch.randn(2, 3, 16, 16, generator=draws) for _ in range(2))
    torch.testing.assert_close(result.gradient, one + 0.5 * two)
    assert result.loss == 3.0
    expected = {"picture_timestep": 7.0, "prompt_timestep": 7.0, "evaluations": 6.0}
    assert expected.items() <= result.diagnostics.items()
    assert first.calls == second.calls == [0.25]


def test_a_guidance_without_weight_is_not_asked():
    silent, heard = Drawn(), Drawn()
    combined = CombinedGuidance({"a": WeightedGuidance(silent, 0.0), "b": WeightedGuidance(heard, 2.0)})
    alone = judge(Drawn())
    result = judge(combined)
    torch.testing.assert_close(result.gradient, 2.0 * alone.gradient)
    assert not silent.calls
    assert "a_timestep" not in result.diagnostics


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_weights_that_make_no_sense(weight: float):
    with pytest.raises(RequestError, match="weight"):
        CombinedGuidance({"only": WeightedGuidance(Drawn(), weight)})
    with pytest.raises(RequestError, match="No guidance"):
        CombinedGuidance({})


def test_prompt_and_picture_together(tmp_path: Path):
    tiny_model.make_pipeline().save_pretrained(tmp_path / "words")
    prompt = tiny_model.load(tmp_path / "words")
    view = tiny_zero123.load(tiny_zero123.write_folder(tmp_path / "views"))
    weight = ViewGuidanceSettings().prompt_weight
    combined = CombinedGuidance({"picture": WeightedGuidance(view, 1.0), "prompt": WeightedGuidance(prompt, weight)})
    images, where = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5)), cameras(60.0)
    draws, again = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    result = combined.gradient(images, where, 0.5, draws)
    first = view.gradient(images, where, 0.5, again)
    second = prompt.gradient(images, where, 0.5, again)
    torch.testing.assert_close(result.gradient, first.gradient + weight * second.gradient)
    assert result.loss == pytest.approx(first.loss + weight * second.loss)
    assert torch.isfinite(result.gradient).all()
