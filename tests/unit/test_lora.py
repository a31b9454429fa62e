"""LoRAs, in the names of diffusers, PEFT and kohya: added to the weights they were trained for, or one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from backend.errors import ModelError, RequestError
from backend.guidance import load_guidance
from backend.guidance.lora import parse_loras
from backend.request import GuidanceSettings, LoadingSettings
from tests.unit.conformance import cameras, cut, judge
from tests.unit.tiny_families import diffusers, write

CPU = torch.device("cpu")
SETTINGS = GuidanceSettings(perp_neg="off")
LAYERS = {
    "sd15": ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"),
    "sdxl": ("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_v"),
    "sd3": ("transformer", "transformer_blocks.0.attn.to_k"),
    "flux dev": ("transformer", "transformer_blocks.0.attn.to_q"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("families")
    return {name: write(name, place / name) for name in (*LAYERS, "if")}


def load(folder: Path, loras: str = "") -> Any:
    loading = LoadingSettings(image_size=16, loras=loras)
    return load_guidance(str(folder), "a red duck", "", SETTINGS, CPU, loading=loading)


def weight_of(guidance: Any, layer: str) -> Tensor:
    return guidance.networks.denoiser.get_submodule(layer).weight


def halves(weight: Tensor, rank: int = 2) -> tuple[Tensor, Tensor]:
    """A [r, in] and B [out, r]."""
    draws = torch.Generator().manual_seed(4)
    return (
        torch.randn(rank, weight.shape[1], generator=draws),
        torch.randn(weight.shape[0], rank, generator=draws),
    )


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("scale", ["", "@0.5", "@-1"])
def test_a_lora_of_each_family(folders: dict[str, Path], tmp_path: Path, name: str, scale: str):
    part, layer = LAYERS[name]
    plain = load(folders[name])
    down, up = halves(weight_of(plain, layer))
    path = tmp_path / "style.safetensors"
    save_file({f"{part}.{layer}.lora_A.weight": down, f"{part}.{layer}.lora_B.weight": up}, path)
    told = load(folders[name], f"{path}{scale}")
    expected = weight_of(plain, layer) + float(scale[1:] or 1) * up @ down
    torch.testing.assert_close(weight_of(told, layer), expected)
    where = cameras(0.0)
    assert not torch.allclose(judge(plain, where).gradient, judge(told, where).gradient, rtol=1e-3)


def test_kohyas_names_and_its_alpha_reach_unet_and_text_encoder(folders: dict[str, Path], tmp_path: Path):
    layer = LAYERS["sd15"][1]
    plain = load(folders["sd15"])
    down, up = halves(weight_of(plain, layer))
    words_down, words_up = halves(torch.empty(16, 16))
    flat, path = layer.replace(".", "_"), tmp_path / "kohya.safetensors"
    words = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    save_file(
        {
            f"lora_unet_{flat}.lora_down.weight": down, f"lora_unet_{flat}.lora_up.weight": up,
            f"lora_unet_{flat}.alpha": torch.tensor(1.0), f"{words}.lora_down.weight": words_down,
            f"{words}.lora_up.weight": words_up, f"{words}.alpha": torch.tensor(2.0),
        },
        path,
    )  # fmt: skip
    told = load(folders["sd15"], str(path))
    torch.testing.assert_close(weight_of(told, layer), weight_of(plain, layer) + 0.5 * up @ down)  # α / r = 1 / 2
    assert not torch.allclose(told.text.views, plain.text.views, rtol=1e-2)
    assert torch.equal(told.networks.vae.encoder.conv_in.weight, plain.networks.vae.encoder.conv_in.weight)


def test_several_loras_add_up(folders: dict[str, Path], tmp_path: Path):
    part, layer = LAYERS["sd15"]
    plain = load(folders["sd15"])
    down, up = halves(weight_of(plain, layer))
    paths = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for path in paths:
        save_file({f"{part}.{layer}.lora_A.weight": down, f"{part}.{layer}.lora_B.weight": up}, path)
    both = load(folders["sd15"], f"{paths[0]}; {paths[1]}@0.25")
    torch.testing.assert_close(weight_of(both, layer), weight_of(plain, layer) + 1.25 * up @ down)


def test_paths_and_weights():
    found = parse_loras("a b.safetensors; C:/x@home/y.safetensors@0.5 ;; z@v2.safetensors")
    assert [(path.as_posix(), scale) for path, scale in found] == [
        ("a b.safetensors", 1.0), ("C:/x@home/y.safetensors", 0.5), ("z@v2.safetensors", 1.0),
    ]  # fmt: skip
    with pytest.raises(RequestError, match="is no number"):
        parse_loras("a.safetensors@much")


def test_what_is_no_lora_of_this_model(folders: dict[str, Path], tmp_path: Path):
    part, layer = LAYERS["sd15"]
    down, up = halves(torch.empty(8, 12))
    good = {f"{part}.{layer}.lora_A.weight": down, f"{part}.{layer}.lora_B.weight": up}
    cases: dict[str, tuple[dict[str, Tensor], str]] = {
        "size": (good, "does not fit"),
        "half": ({k: v for k, v in good.items() if "_A" in k}, "lacks the second half"),
        "none": ({"conv.weight": down}, "is no LoRA"),
        "flux": ({f"transformer.x.{half}.weight": v for half, v in (("lora_A", down), ("lora_B", up))}, "transformer"),
        "layer": ({k.replace("attn2", "attn9"): v for k, v in good.items()}, "has no .*attn9"),
    }
    for name, (weights, message) in cases.items():
        path = tmp_path / f"{name}.safetensors"
        save_file(weights, path)
        with pytest.raises(ModelError, match=message) as caught:
            load(folders["sd15"], str(path))
        assert caught.value.hint
    broken = tmp_path / "size.safetensors"
    cut(broken)
    for loras, message in (
        (str(broken), "is damaged"), (str(tmp_path / "gone.safetensors"), "There is no LoRA"),
        (str(tmp_path / "old.pt"), "pickle"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=message):
            load(folders["sd15"], loras)
    save_file(good, broken)
    with pytest.raises(ModelError, match=r"does not fit|does not have"):
        load(folders["if"], str(broken))


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3", "flux dev"])
def test_the_same_weights_as_diffusers_and_peft_fuse(folders: dict[str, Path], tmp_path: Path, name: str):
    pytest.importorskip("peft", reason="PEFT, which diffusers fuses LoRAs with, is not among the backend's libraries")
    part, layer = LAYERS[name]
    down, up = halves(weight_of(load(folders[name]), layer))
    path = tmp_path / "style.safetensors"
    save_file({f"{part}.{layer}.lora_A.weight": down, f"{part}.{layer}.lora_B.weight": up}, path)
    pipe = diffusers.DiffusionPipeline.from_pretrained(folders[name])
    pipe.load_lora_weights(str(path))
    pipe.fuse_lora(lora_scale=0.7)
    pipe.unload_lora_weights()
    expected = getattr(pipe, part).get_submodule(layer).weight
    torch.testing.assert_close(weight_of(load(folders[name], f"{path}@0.7"), layer), expected)
