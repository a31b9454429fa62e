"""Model folders: a broken one is one clear error, and prompts keep to the folder's vocabulary."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from backend.errors import ModelError, VocabularyError
from backend.guidance import load_guidance
from backend.guidance.model_folder import BUILT_IN_FOLDER
from backend.guidance.vocabulary import Vocabulary
from backend.request import GuidanceSettings
from tests.unit.conformance import Damage, check_one_clear_error, cut, pickled, without_weight
from tests.unit.tiny_model import CPU, WIDTH, add_camera, edit, load, make_pipeline


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; not to be changed."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be changed."""
    return Path(shutil.copytree(written, tmp_path / "model"))


def index_entry(part: str, entry: list[str | None]) -> Damage:
    return lambda folder: edit(folder / "model_index.json", **{part: entry})


BROKEN: dict[str, tuple[Damage, str]] = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "no model_index.json"),
    "index cut off": (lambda f: cut(f / "model_index.json"), "model_index.json cannot be read"),
    "index a list": (lambda f: (f / "model_index.json").write_text("[]"), "not a JSON object"),
    "another family": (
        lambda f: edit(f / "model_index.json", _class_name="StableCascadePipeline"),
        "StableCascadePipeline, which cannot guide",
    ),
    "no unet in the index": (index_entry("unet", [None, None]), "no unet"),
    "another unet": (index_entry("unet", ["diffusers", "SD3Transformer2DModel"]), "is a SD3Transformer2DModel"),
    "flow matching": (index_entry("scheduler", ["diffusers", "FlowMatchEulerDiscreteScheduler"]), "flow-matching"),
    "no vae folder": (lambda f: shutil.rmtree(f / "vae"), "no vae"),
    "unet cut off": (lambda f: cut(f / "unet" / "diffusion_pytorch_model.safetensors"), "safetensors is damaged"),
    "text encoder empty": (lambda f: (f / "text_encoder" / "model.safetensors").write_bytes(b""), "is damaged"),
    "weights gone": (lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "vae of .* no .safe"),
    "pickle only": (pickled("unet"), "stored as a pickle"),
    "config cut off": (lambda f: cut(f / "unet" / "config.json"), "config.json cannot be read"),
    "config nonsense": (
        lambda f: edit(f / "unet" / "config.json", block_out_channels="many"), "unet of .* cannot be loaded",
    ),
    "sizes differ": (
        lambda f: edit(f / "vae" / "config.json", block_out_channels=[16, 24]), "vae of .* cannot be loaded",
    ),
    "weight missing": (without_weight("unet", "conv_in.weight"), r"unet of .* lacks 1 of its weights \(conv_in.weight"),
    "text weight missing": (
        without_weight("text_encoder", "token_embedding.weight"), "text_encoder of .* lacks 1 of its weights",
    ),
    "tokenizer gone": (lambda f: (f / "tokenizer" / "tokenizer.json").unlink(), "no vocabulary"),
    "tokenizer nonsense": (
        lambda f: (f / "tokenizer" / "tokenizer.json").write_text('{"model": 1}'), "tokenizer of .* cannot be loaded",
    ),
    "scheduler nonsense": (
        lambda f: edit(f / "scheduler" / "scheduler_config.json", beta_schedule="steep"),
        "scheduler of .* cannot be loaded",
    ),
    "camera broken": (
        lambda f: (add_camera(f), cut(f / "camera_projection" / "diffusion_pytorch_model.safetensors")),
        "camera projection",
    ),
    "camera of another model": (lambda f: add_camera(f, WIDTH * 2), "camera projection of .* does not fit"),
    "vocabulary broken": (lambda f: (f / "vocabulary.json").write_text("{"), "vocabulary.json cannot be read"),
    "vocabulary empty": (lambda f: (f / "vocabulary.json").write_text("{}"), "lists no words"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_one_clear_error(folder: Path, case: str, capfd: pytest.CaptureFixture[str]):
    damage, message = BROKEN[case]
    damage(folder)
    check_one_clear_error(lambda: load(folder), message, capfd)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "no folder at all", "nobody-at-all/no-such-model"])
def test_a_model_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError) as caught:
        load_guidance(name, "a red duck", "", GuidanceSettings(), CPU)
    assert name.strip("./") in str(caught.value)
    assert caught.value.hint


def test_a_checkpoint_that_is_damaged(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="is damaged"):
        load_guidance(str(tmp_path / "model.safetensors"), "a red duck", "", GuidanceSettings(), CPU)


def test_the_built_in_model_is_an_ordinary_folder():
    assert BUILT_IN_FOLDER.parts[-3:] == ("backend", "toybox", "weights")


def test_the_vocabulary_of_a_folder_is_kept(folder: Path):
    words = {"words": ["a", "red", "duck", "view"], "kinds": ["duck"], "colours": ["red"], "made": "2026"}
    (folder / "vocabulary.json").write_text(json.dumps(words))
    load(folder, prompt="A RED duck!", negative="red")
    with pytest.raises(VocabularyError, match='does not know "dragon"') as caught:
        load(folder, prompt="a red dragon")
    assert "kinds: duck; colours: red; other words: a, view" in caught.value.hint
    with pytest.raises(VocabularyError, match='"ugly"'):
        load(folder, negative="ugly")
    with pytest.raises(VocabularyError, match='"blue"'):
        load(folder, prompt="a red duck", camera_prompts=("a red duck", "a blue duck"))
    with pytest.raises(VocabularyError, match='"blue"'):
        load(folder, prompt="a red duck", camera_prompts=("a red duck", "a blue duck"))
    with pytest.raises(VocabularyError, match='"dukc"') as caught:
        load(folder, prompt="a dukc")
    assert 'Did you mean "duck"?' in caught.value.hint


@pytest.mark.parametrize("prompt", ["a duck-car", "a “duck”, a (car).", "a T-Rex", "duck – car"])
def test_punctuation_is_no_word(prompt: str):
    Vocabulary({"words": ("a", "duck", "car", "t-rex")}).check(prompt)


@pytest.mark.parametrize(
    ("prompt", "unknown"), [("a T-duck", "t"), ("2 ducks", "2"), ("a 🦆", "🦆"), ("a duck+car", "duck+car")]
)
def test_anything_else_is(prompt: str, unknown: str):
    with pytest.raises(VocabularyError) as caught:
        Vocabulary({"words": ("a", "duck", "car", "t-rex")}).check(prompt)
    assert f'"{unknown}"' in caught.value.message
