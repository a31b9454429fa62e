"""Jobs whose pictures are shown to a model, alone and beside a prompt."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import backend.guidance
from backend.cameras import orbit_cameras
from backend.errors import Cancelled, ModelError
from backend.guidance.combined import CombinedGuidance
from backend.guidance.zero123 import Zero123Guidance
from backend.job import run_job
from backend.job_models import load_guidance
from backend.reference import FixedCamera, ReferenceImage
from backend.reference_files import bind, prepare
from backend.request import LoadingSettings, RefineSettings, Request, ViewGuidanceSettings
from tests.unit import tiny_model, tiny_zero123
from tests.unit.picture_jobs import SETTINGS, SMALL, never, nothing, stop_after
from tests.unit.silhouette import BluePainter

pytestmark = pytest.mark.usefixtures("threads_kept")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def view_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_zero123.write_folder(tmp_path_factory.mktemp("model") / "zero123")


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "text"
    tiny_model.make_pipeline().save_pretrained(folder)
    return folder


def guided(picture: Path, view_model: Any, **changes: Any) -> Request:
    return SMALL.replace(references=(ReferenceImage(str(picture), 15.0),), view_model=str(view_model), **changes)


def guidance_of(request: Request) -> Any:
    bound = bind(request.validated())[0]
    return load_guidance(bound, prepare(bound, nothing), CPU, nothing)


def test_a_model_is_shown_the_picture_in_its_camera(picture: Path, view_model: Path) -> None:
    guidance = guidance_of(guided(picture, view_model))
    assert isinstance(guidance, Zero123Guidance)
    assert guidance.references.cameras.azimuth[0] == pytest.approx(15.0)
    assert len(guidance.references.latents) == 1


@pytest.mark.parametrize(("symmetry", "shown"), [("mirror", 2), ("none", 1)])
def test_of_what_is_mirrored_a_model_is_shown_the_mirror_image_as_well(
    picture: Path, view_model: Path, symmetry: str, shown: int
) -> None:
    guidance = guidance_of(guided(picture, view_model).with_setting("optimize.symmetry", symmetry))
    assert guidance.references.cameras.azimuth == pytest.approx([15.0, -15.0][:shown])


def test_of_several_pictures_it_is_shown_these_alone(picture: Path, view_model: Path) -> None:
    both = tuple(ReferenceImage(str(picture), azimuth) for azimuth in (15.0, 120.0))
    request = guided(picture, view_model).replace(references=both).with_setting("optimize.symmetry", "mirror")
    assert guidance_of(request).references.cameras.azimuth == pytest.approx([15.0, 120.0])


def test_prompt_and_picture_guide_together(picture: Path, view_model: Path, text_model: Path) -> None:
    request = guided(picture, view_model, prompt="a red duck", model=str(text_model))
    both = guidance_of(request)
    assert isinstance(both, CombinedGuidance)
    assert {name: part.weight for name, part in both.parts.items()} == {"pictures": 1.0, "prompt": 0.025}
    assert isinstance(
        guidance_of(request.replace(view_guidance=ViewGuidanceSettings(prompt_weight=0.0))), Zero123Guidance
    )
    assert type(guidance_of(request.replace(view_model="none"))).__name__ == "StableDiffusionGuidance"
    assert guidance_of(SMALL.replace(references=request.references)) is None


def test_prompts_of_cameras_reach_the_model(picture: Path, text_model: Path) -> None:
    pose = tuple(map(tuple, orbit_cameras([30.0], 10.0, 3.0, 40.0).camera_to_world[0].astype(float).tolist()))
    seen = tuple(FixedCamera(pose, (2.0, 2.0), prompt=words) for words in ("", "a blue car", "a car"))
    request = guided(picture, "none", prompt="a red duck", model=str(text_model), cameras=seen)
    request = request.replace(loading=LoadingSettings(image_size=8))
    guidance = guidance_of(request)
    assert len(guidance.text.views) == 18
    assert guidance.image_size == (8, 8)


def test_a_guided_job_resumes_to_the_same_mesh(
    picture: Path, view_model: Path, text_model: Path, tmp_path: Path
) -> None:
    request = guided(picture, view_model, prompt="a red duck", model=str(text_model))
    request = request.replace(
        optimize=dataclasses.replace(request.optimize, iterations=8),
        refine=RefineSettings(iterations=6, views=4, visits=1, sampling_steps=2),
    )
    whole = run_job(request, tmp_path / "whole", nothing, never)
    with pytest.raises(Cancelled):
        run_job(request, tmp_path / "parts", *stop_after(5))
    with pytest.raises(Cancelled):
        run_job(request, tmp_path / "parts", *stop_after(12))
    run_job(request, tmp_path / "parts", nothing, never)
    assert (tmp_path / "parts" / "mesh.glb").read_bytes() == (whole / "mesh.glb").read_bytes()
    assert json.loads((whole / "metrics.json").read_text())["optimize"]["loss"] > 0


@pytest.mark.parametrize("alone", [False, True])
def test_steps_of_the_picture_alone_ask_no_model_but_for_paintings(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    blue = BluePainter()
    monkeypatch.setattr(backend.guidance, "load_view_guidance", lambda *_: blue)
    reference = dataclasses.replace(SETTINGS, alone=alone, interval=3)
    painted = RefineSettings(iterations=6, views=4, visits=1, sampling_steps=2)
    request = guided(picture, "toybox-views", reference=reference, refine=painted)
    metrics = json.loads((run_job(request, tmp_path / "job", nothing, never) / "metrics.json").read_text())
    assert metrics["optimize"]["steps"] == 18
    assert blue.calls == (8 if alone else 12)
    assert len(blue.painted) == 6


def test_a_model_that_is_missing_or_of_another_family_leaves_nothing(
    picture: Path, text_model: Path, tmp_path: Path
) -> None:
    for model, said in ((text_model, "cannot be shown a picture"), (tmp_path / "none", "no model folder")):
        with pytest.raises(ModelError, match=said):
            run_job(guided(picture, model), tmp_path / "job", nothing, never)
    assert not (tmp_path / "job").exists()
