"""Folders of the Zero-1-to-3 family: broken ones, other layouts, and the Hub's cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from backend.errors import ModelError
from backend.guidance import load_guidance
from backend.request import GuidanceSettings
from tests.unit.conformance import Damage, changed_weights, check_one_clear_error, cut, judge, pickled
from tests.unit.tiny_model import edit
from tests.unit.tiny_zero123 import CPU, cameras, diffusers, load, write_folder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; not to be changed."""
    return write_folder(tmp_path_factory.mktemp("models") / "tiny-zero123")


@pytest.fixture(scope="module")
def tiny(written: Path) -> Any:
    """The model with default settings, shown one picture from the front."""
    return load(written)


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be changed."""
    return Path(shutil.copytree(written, tmp_path / "model"))


def without_projection(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    del index["clip_camera_projection"]
    (folder / "model_index.json").write_text(json.dumps(index))


def plain_unet(folder: Path) -> None:
    with torch.random.fork_rng():
        config = json.loads((folder / "unet" / "config.json").read_text())
        diffusers.UNet2DConditionModel.from_config({**config, "in_channels": 4}).save_pretrained(folder / "unet")


INDEX = "model_index.json"
LAYER = "clip_camera_projection"
BROKEN: dict[str, tuple[Damage, str]] = {
    "no index": (lambda f: (f / INDEX).unlink(), "no model_index.json"),
    "prompts only": (lambda f: edit(f / INDEX, _class_name="StableDiffusionPipeline"), "cannot be shown a picture"),
    "no projection": (without_projection, "no projection of the pose"),
    "projection's folder gone": (lambda f: shutil.rmtree(f / LAYER), "has no clip_camera_projection"),
    "another projection": (lambda f: edit(f / INDEX, **{LAYER: ["zero123", "Other"]}), "is a Other"),
    "projection pickled": (pickled(LAYER), "stored as a pickle"),
    "projection cut off": (lambda f: cut(f / LAYER / "diffusion_pytorch_model.safetensors"), "is damaged"),
    "projection without a bias": (
        changed_weights(LAYER, lambda w: {"proj.weight": w["proj.weight"]}), "not one linear layer",
    ),
    "projection of three numbers": (
        changed_weights(LAYER, lambda w: {**w, "proj.weight": w["proj.weight"][:, 1:].contiguous()}),
        "does not fit its image encoder: it takes 23 numbers",
    ),
    "projection too narrow": (
        changed_weights(LAYER, lambda w: {k: v[:-1].contiguous() for k, v in w.items()}), "does not fit its unet",
    ),
    "no image encoder": (lambda f: shutil.rmtree(f / "image_encoder"), "no image_encoder"),
    "encoder without projection": (
        lambda f: edit(f / INDEX, image_encoder=["transformers", "CLIPVisionModel"]), "is a CLIPVisionModel",
    ),
    "encoder's weight missing": (
        changed_weights("image_encoder", lambda w: {k: v for k, v in w.items() if "visual_proj" not in k}),
        "image_encoder of .* lacks 1 of its weights",
    ),
    "unet of four channels": (plain_unet, "takes 4 channels and makes 4, where its vae asks for 8 and 4"),
    "unet cut off": (lambda f: cut(f / "unet" / "diffusion_pytorch_model.safetensors"), "is damaged"),
    "colours nonsense": (
        lambda f: edit(f / "feature_extractor" / "preprocessor_config.json", image_std=[1, 0, 1]), "image_std",
    ),
    "flow matching": (
        lambda f: edit(f / INDEX, scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"]), "flow-matching",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_one_clear_error(folder: Path, case: str, capfd: pytest.CaptureFixture[str]):
    damage, message = BROKEN[case]
    damage(folder)
    check_one_clear_error(lambda: load(folder), message, capfd)


def test_a_prompt_is_not_for_this_family(written: Path):
    with pytest.raises(ModelError, match="is shown pictures and cannot read a prompt"):
        load_guidance(str(written), "a duck", "", GuidanceSettings(), CPU)


def test_a_pipeline_with_its_code_beside_it_and_half_precision_weights(folder: Path, tiny: Any):
    """As some folders on the Hub are: [module, class] for the pipeline, weights as fp16 variants alone."""
    edit(folder / INDEX, _class_name=["zero123", "Zero123Pipeline"])
    (folder / "feature_extractor" / "preprocessor_config.json").unlink()  # then CLIP's own colours
    for path in list(folder.glob("*/*.safetensors")):
        half = {name: value.half() for name, value in load_file(path).items()}
        save_file(half, path.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
        path.unlink()
    guidance = load(folder)
    assert guidance.dtype == torch.float32
    found, expected = (judge(each, cameras(30.0)).gradient.flatten() for each in (guidance, tiny))
    assert torch.nn.functional.cosine_similarity(found, expected, 0) > 0.99


def test_the_same_from_a_hub_cache_and_shards(
    written: Path, tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
):
    """Without a network; the UNet's weights in shards."""
    folder = Path(shutil.copytree(written, tmp_path / "hub" / "models--tiny--views" / "snapshots" / ("0" * 40)))
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="20KB")
    assert len(list((folder / "unet").glob("*-of-*.safetensors"))) > 1
    (folder.parent.parent / "refs").mkdir()
    (folder.parent.parent / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    found = judge(load(Path("tiny/views")), cameras(30.0))
    torch.testing.assert_close(found.gradient, judge(tiny, cameras(30.0)).gradient, rtol=0, atol=0)
