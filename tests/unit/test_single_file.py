"""A model in one .safetensors file: made a folder in the cache, once, and the same model as its folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from backend.errors import ModelError
from backend.guidance import load_guidance, single_file
from backend.request import GuidanceSettings
from tests.unit.conformance import cameras, cut, judge
from tests.unit.ldm_layout import write_checkpoint
from tests.unit.tiny_families import make

CPU = torch.device("cpu")


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


def test_a_disk_that_is_full(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(single_file, "_convert", full)
    with pytest.raises(ModelError, match="No space left on device"):
        load(checkpoint)
