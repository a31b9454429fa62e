"""Models of the Hub: fetched only where that is allowed, gone on with, and every failure one clear error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants, file_download

from backend.errors import ModelError
from backend.guidance import load_guidance
from backend.guidance.fetch import MOVED
from backend.request import GuidanceSettings, LoadingSettings
from tests.unit.conformance import cameras, judge, pickled
from tests.unit.fake_hub import Hub, running
from tests.unit.tiny_model import edit, make_pipeline

CPU = torch.device("cpu")
NAME = "someone/tiny"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; not to be changed."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_pipeline().save_pretrained(folder)
    half = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(half.with_name("diffusion_pytorch_model.safetensors"), half)
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"never fetched")
    edit(folder / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    (folder / "model.ckpt").write_bytes(b"never fetched")
    return folder


@pytest.fixture
def hub(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that has the model, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with running() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", found.url)
        found.models[NAME] = Path(shutil.copytree(written, tmp_path / "on the hub"))
        yield found


def load(model: str = NAME, *, allowed: bool = True, told: list[str] | None = None) -> Any:
    tell = (lambda _: None) if told is None else told.append
    return load_guidance(model, "a red duck", "", GuidanceSettings(), CPU, allowed, None, tell)


def test_a_model_is_fetched_once_and_only_what_is_needed(hub: Hub, written: Path):
    told: list[str] = []
    expected = judge(load(str(written)), cameras(30.0)).gradient
    assert torch.equal(judge(load(told=told), cameras(30.0)).gradient, expected)
    names = {name.partition("@")[0] for name in hub.fetched}
    assert "unet/diffusion_pytorch_model.safetensors" in names
    assert not names & {
        "model.ckpt", "safety_checker/model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
    }  # fmt: skip
    assert told[0].startswith(f"Downloading {NAME} (0.00 GB)")
    assert any(" of 0.00 GB." in text for text in told[1:])  # progress, to the end
    hub.fetched.clear()
    for allowed in (True, False):
        assert torch.equal(judge(load(allowed=allowed), cameras(30.0)).gradient, expected)
    assert hub.fetched == []


def test_half_precision_is_enough_for_a_model_that_runs_in_it(hub: Hub):
    load_guidance(NAME, "a red duck", "", GuidanceSettings(), CPU, True, LoadingSettings(precision="bf16"))
    names = {name.partition("@")[0] for name in hub.fetched}
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in names
    assert "unet/diffusion_pytorch_model.safetensors" not in names
    assert "vae/diffusion_pytorch_model.safetensors" in names  # there is no other


def test_nothing_is_fetched_without_leave(hub: Hub):
    with pytest.raises(ModelError, match="neither a folder nor a model downloaded before") as caught:
        load(allowed=False)
    assert "allow the download" in caught.value.hint
    assert hub.fetched == []


def test_a_download_that_broke_off_is_said_and_gone_on_with(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)  # what is kept is whole chunks
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    hub.breaks_at = "unet/diffusion_pytorch_model.safetensors"
    with pytest.raises(ModelError, match="cannot be downloaded") as caught:
        load()
    assert "goes on" in caught.value.hint
    with pytest.raises(ModelError, match=f"{NAME} is only half downloaded: its unet is missing") as caught:
        load(allowed=False)
    assert "Allow the download once more" in caught.value.hint
    name = "unet/diffusion_pytorch_model.safetensors"
    resumed = [int(each.partition("@")[2]) for each in hub.fetched if each.startswith(name)]
    assert resumed == sorted(resumed)  # the library went on behind what had come, until it gave up
    assert resumed[-1] > 0
    snapshot = next((tmp_path / "cache").glob("models--*/snapshots/*"))
    here = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()}
    hub.breaks_at = ""
    hub.fetched.clear()
    load()
    again = {each.partition("@")[0] for each in hub.fetched}
    assert name in again
    assert not again & here  # files that had come whole are not sent again
    assert here


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        ("unet", "diffusion_pytorch_model.safetensors"),
        ("unet", "config.json"),
        ("tokenizer", "tokenizer_config.json"),
        ("scheduler", ""),
    ],
)
def test_files_may_come_in_any_order(hub: Hub, tmp_path: Path, part: str, kept: str):
    """Whatever of a part came first: it is half downloaded, and leave to download mends it."""
    load()
    place = next((tmp_path / "cache").glob("models--*/snapshots/*")) / part
    for path in place.iterdir():
        if path.name != kept:
            path.unlink()
    with pytest.raises(ModelError, match=f"{NAME} is only half downloaded: its {part} is missing"):
        load(allowed=False)
    load()
    load(allowed=False)


def test_a_cache_that_lacks_a_shard(hub: Hub, tmp_path: Path):
    load()
    place = next((tmp_path / "cache").glob("models--*/snapshots/*/unet"))
    (place / "diffusion_pytorch_model.safetensors").rename(place / "diffusion_pytorch_model-00001-of-00002.safetensors")
    shards = {"a": "diffusion_pytorch_model-00001-of-00002.safetensors",
              "b": "diffusion_pytorch_model-00002-of-00002.safetensors"}  # fmt: skip
    (place / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ModelError, match=r"half downloaded: unet/.*-00002-of-00002\.safetensors is"):
        load(allowed=False)
    with pytest.raises(ModelError, match=r"unet of .* is only half there: .*00002-of-00002"):
        load(str(place.parent))


def test_a_gated_model(hub: Hub):
    hub.gated.add(NAME)
    with pytest.raises(ModelError, match="is gated") as caught:
        load()
    assert f"/{NAME}" in caught.value.hint
    assert "hf auth login" in caught.value.hint


def test_a_model_that_is_nowhere(hub: Hub):
    with pytest.raises(ModelError, match="There is no model someone/else on the Hub") as caught:
        load("someone/else")
    assert "Check the name" in caught.value.hint


@pytest.mark.parametrize("model", sorted(MOVED))
@pytest.mark.parametrize("allowed", [True, False])
def test_a_model_whose_first_home_is_gone_names_the_new_one(hub: Hub, model: str, allowed: bool):
    with pytest.raises(ModelError) as caught:
        load(model, allowed=allowed)
    assert MOVED[model] in caught.value.hint


def test_a_revision(hub: Hub):
    with pytest.raises(ModelError, match="has no revision 'nightly'"):
        load(f"{NAME}@nightly")
    load(f"{NAME}@{'1' * 40}")
    hub.fetched.clear()
    load(f"{NAME}@{'1' * 40}", allowed=False)
    assert hub.fetched == []


def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="cannot be downloaded") as caught:
        load()
    assert "the network" in caught.value.hint


def test_a_model_of_another_family_is_refused_before_its_weights(hub: Hub):
    edit(hub.models[NAME] / "model_index.json", _class_name="StableCascadeDecoderPipeline")
    with pytest.raises(ModelError, match=f"{NAME} is a StableCascadeDecoderPipeline, which cannot guide"):
        load()
    assert {name.partition("@")[0] for name in hub.fetched} == {"model_index.json"}


def test_pickles_are_refused_before_they_are_fetched(hub: Hub):
    pickled("vae")(hub.models[NAME])
    with pytest.raises(ModelError, match=f"vae of {NAME} is stored as a pickle"):
        load()
    assert {name.partition("@")[0] for name in hub.fetched} == {"model_index.json"}


def test_a_model_in_another_layout(hub: Hub):
    (hub.models[NAME] / "model_index.json").unlink()
    with pytest.raises(ModelError, match="not in the layout of diffusers") as caught:
        load()
    assert ".safetensors checkpoint" in caught.value.hint


def test_a_disk_that_is_full(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ModelError, match=r"needs .* GB on the disk") as caught:
        load()
    assert "HF_HOME" in caught.value.hint
