"""The shipped novel-view model: small with its lender, and it shows the object that it was shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from backend.guidance import load_view_guidance
from backend.guidance.model_folder import BUILT_IN_FOLDER, BUILT_IN_VIEW_FOLDER
from backend.guidance.references import ReferencePicture
from backend.guidance.view_volume import FOLDER
from backend.request import BUILT_IN_VIEW_MODEL, ViewGuidanceSettings
from backend.toybox.view_dataset import before_white
from backend.toybox.view_evaluate import samples, subject


def test_both_models_together_are_small_and_safe() -> None:
    files = [path for folder in (BUILT_IN_FOLDER, BUILT_IN_VIEW_FOLDER) for path in folder.rglob("*")]
    sides = BUILT_IN_VIEW_FOLDER / FOLDER  # a model of its own, with a test of its own
    files = [path for path in files if path.is_file() and sides not in path.parents]
    assert sum(path.stat().st_size for path in files) < 30e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".txt", ".png"}
    assert not (BUILT_IN_VIEW_FOLDER / "vae").exists()


def test_it_is_found_by_name_and_knows_its_pose() -> None:
    one = subject(0, "known", "car")
    shown = ReferencePicture(torch.from_numpy(one.reference).permute(2, 0, 1), one.camera)
    guidance: Any = load_view_guidance(BUILT_IN_VIEW_MODEL, [shown], ViewGuidanceSettings(), torch.device("cpu"))
    assert guidance.networks.pose == "stable-zero123"
    assert guidance.image_size == (64, 64)


def test_samples_show_the_object_of_the_picture_and_its_turn() -> None:
    """Of four held-out objects, each sample is nearer to its own true views than to any other object's."""
    shown = [subject(i, "known", kind) for i, kind in enumerate(("car", "penguin", "chair", "frog"))]
    made = [samples(BUILT_IN_VIEW_FOLDER, one, 2.0, 8) for one in shown]
    true = [before_white(one.truth) for one in shown]
    errors = np.array([[((a - b) ** 2).mean() for b in true] for a in made])
    assert errors.argmin(1).tolist() == [0, 1, 2, 3]
    turned = [
        [((views - other[[v]]) ** 2).mean((1, 2, 3)) for v in range(4)] for views, other in zip(made, true, strict=True)
    ]
    own = np.mean([[errors[v][v] for v in range(4)] for errors in turned])
    assert own < 0.8 * np.mean(turned)
