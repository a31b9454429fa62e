"""Folders of every family as they lie on disks: in shards, in half precision, broken, or under another's name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.errors import ModelError
from tests.unit.conformance import Damage, cameras, check_one_clear_error, cut, judge, load, pickled, without_weight
from tests.unit.sentencepiece_writer import PIECES, write_model
from tests.unit.tiny_families import make, write
from tests.unit.tiny_model import edit

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each build; not to be changed."""
    place, names = tmp_path_factory.mktemp("families"), ("sd15", "sd21", "sdxl", "if", "sd3", "flux dev")
    return {name: write(name, place / name.replace(" ", "-")) for name in names}


@pytest.mark.parametrize("name", ["sd15", "sdxl", "if", "sd3", "flux dev"])
def test_weights_in_shards_and_half_precision_alone(folders: dict[str, Path], name: str, tmp_path: Path):
    """As large models lie on the Hub: lists of shards, and nothing but the variant fp16."""
    folder = tmp_path / "model"
    make(name).to(torch.float16).save_pretrained(folder, variant="fp16", max_shard_size="20KB")
    assert len(list(folder.glob("*/*-of-*.safetensors"))) > 3
    assert not list(folder.glob("*/model.safetensors"))
    found, expected = (judge(load(each), cameras(30.0)).gradient.flatten() for each in (folder, folders[name]))
    assert float(torch.cosine_similarity(found, expected, 0)) > 0.99
    shard = min(folder.glob("*/*-of-*.safetensors"))
    shard.unlink()
    with pytest.raises(ModelError, match=f"only half there: {shard.name} is missing"):
        load(folder)


def index_says(**changes: Any) -> Damage:
    return lambda folder: edit(folder / "model_index.json", **changes)


def scheduler_says(**changes: Any) -> Damage:
    return lambda folder: edit(folder / "scheduler" / "scheduler_config.json", **changes)


def config_says(part: str, **changes: Any) -> Damage:
    return lambda folder: edit(folder / part / "config.json", **changes)


def spiece_alone(folder: Path) -> None:
    for path in (folder / "tokenizer").iterdir():
        path.unlink()
    (folder / "tokenizer" / "spiece.model").write_bytes(b"a SentencePiece model")


def spiece_cut(folder: Path) -> None:
    spiece_alone(folder)
    place = folder / "tokenizer" / "spiece.model"
    place.write_bytes(write_model(PIECES))
    cut(place)


FLOW = "FlowMatchEulerDiscreteScheduler"
BROKEN: dict[str, tuple[str, Damage, str]] = {
    "if: a vocabulary that is none": ("if", spiece_alone, "tokenizer of .* cannot be loaded \\(it "),
    "if: half a vocabulary": ("if", spiece_cut, "tokenizer of .* cannot be loaded \\(it ends too early"),
    "sd21: a scheduler nobody knows": (
        "sd21", index_says(scheduler=["diffusers", "MagicScheduler"]), "MagicScheduler, is not known here",
    ),
    "sd21: a scheduler of another kind": (
        "sd21", index_says(scheduler=["diffusers", "EDMEulerScheduler"]), "EDMEulerScheduler, is not known here",
    ),
    "sd21: a flow": ("sd21", index_says(scheduler=["diffusers", FLOW]), "flow-matching"),
    "sd21: a prediction nobody knows": ("sd21", scheduler_says(prediction_type="score"), "predicts 'score'"),
    "sd21: ε without signal": (
        "sd21", scheduler_says(prediction_type="epsilon", rescale_betas_zero_snr=True), "ends without any signal",
    ),
    "sdxl: the refiner": ("sdxl", index_says(text_encoder=[None, None], tokenizer=[None, None]), "has no tokenizer"),
    "sdxl: another conditioning": ("sdxl", config_says("unet", addition_embed_type="image"), "unet of .*"),
    "sdxl: the second encoder cut off": (
        "sdxl", lambda f: cut(f / "text_encoder_2" / "model.safetensors"), "is damaged",
    ),
    "sdxl: pickled": ("sdxl", pickled("text_encoder_2"), "stored as a pickle"),
    "if: a later stage": ("if", index_says(_class_name="IFSuperResolutionPipeline"), "which cannot guide"),
    "if: T5's weights gone": ("if", without_weight("text_encoder", "wo.weight"), "lacks 1 of its weights"),
    "sd3: no flow": ("sd3", index_says(scheduler=["diffusers", "DDIMScheduler"]), "no flow-matching one"),
    "sd3: T5's tokenizer gone": ("sd3", lambda f: (f / "tokenizer_3" / "tokenizer.json").unlink(), "no vocabulary"),
    "sd3: T5 gone": ("sd3", lambda f: shutil.rmtree(f / "text_encoder_3"), "no text_encoder_3"),
    "sd3: another VAE": (
        "sd3", lambda f: (shutil.rmtree(f / "vae"), shutil.copytree(f.parent / "other" / "vae", f / "vae")),
        "does not take its vae's latents",
    ),
    "flux: a weight gone": ("flux dev", without_weight("transformer", "proj_out.weight"), "lacks 1 of its weights"),
    "flux: fill": ("flux dev", index_says(_class_name="FluxFillPipeline"), "FluxFillPipeline, which cannot guide"),
    "flux: pickled": ("flux dev", pickled("transformer"), "stored as a pickle"),
    "flux: the CLIP of another": (
        "flux dev", index_says(text_encoder=["transformers", "CLIPTextModelWithProjection"]),
        "It must be a CLIPTextModel",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_one_clear_error(
    folders: dict[str, Path], tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]
):
    name, damage, message = BROKEN[case]
    folder = Path(shutil.copytree(folders[name], tmp_path / "model"))
    (tmp_path / "other").symlink_to(folders["sd15"])
    damage(folder)
    check_one_clear_error(lambda: load(folder), message, capfd)


def test_a_checkpoint_of_another_family_is_no_guide(folders: dict[str, Path], tmp_path: Path):
    """Every family's folder under every other family's name: an error that says what does not fit, never a guess."""
    names = {"sd15": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline", "if": "IFPipeline"}
    names |= {"sd3": "StableDiffusion3Pipeline", "flux dev": "FluxPipeline"}
    for name in names:
        for other, kind in names.items():
            if other == name:
                continue
            folder = Path(shutil.copytree(folders[name], tmp_path / f"{name} as {other}"))
            edit(folder / "model_index.json", _class_name=kind)
            with pytest.raises(ModelError) as caught:
                load(folder)
            assert caught.value.hint
