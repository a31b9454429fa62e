"""The Stable Diffusion family, end to end from a folder on disk: a tiny pipeline with random weights, on the CPU."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.errors import ModelError, RequestError
from backend.guidance.camera_projection import CameraProjection
from backend.guidance.conditioning import Condition, guided_noise
from backend.guidance.distillation import score_gradient
from backend.guidance.latents import resized
from backend.guidance.loading import Loading
from backend.guidance.memory import silent
from backend.guidance.model_folder import open_model
from backend.guidance.stable_diffusion import StableDiffusionGuidance, encode_texts
from backend.guidance.text_encoders import Texts
from backend.request import GuidanceSettings
from tests.unit.conformance import cameras, judge
from tests.unit.tiny_model import (
    CPU,
    TOKENS,
    WORDS,
    add_camera,
    diffusers,
    edit,
    load,
    make_pipeline,
    tokenizer_of,
    transformers,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; not to be changed."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(written: Path) -> Any:
    """The model with default settings, for "a red duck"."""
    return load(written)


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be changed."""
    return Path(shutil.copytree(written, tmp_path / "model"))


@pytest.mark.parametrize("side", [16, 8, 40])
def test_gradient_of_a_batch(tiny: Any, side: int):
    result = judge(tiny, cameras(30.0, -170.0), side=side)
    assert result.gradient.shape == (2, 3, side, side)
    assert result.gradient.dtype == torch.float32
    assert torch.isfinite(result.gradient).all()
    assert all(float(g.abs().max()) > 0 for g in result.gradient)
    assert result.loss > 0
    assert result.diagnostics["evaluations"] == 8
    assert 20 <= result.diagnostics["timestep"] <= 980
    assert result.diagnostics["nonfinite"] == 0


def test_gradient_is_that_of_the_latents_through_the_encoder(written: Path):
    """Against diffusers' own parts in straight autograd: encode, add noise, guide (Perp-Neg off), weigh, go back."""
    settings = GuidanceSettings(perp_neg="off", guidance_scale=7.5, timestep_range=(0.02, 0.98), timestep_anneal="none")
    result = judge(load(written, settings), cameras(0.0, 180.0))
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(written, safety_checker=None)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5), requires_grad=True)
    draws = torch.Generator().manual_seed(0)
    latents = pipe.vae.encode(2 * images - 1).latent_dist.sample(draws) * 0.5
    timesteps = torch.randint(20, 981, (2,), generator=draws)
    noise = torch.randn(latents.shape, generator=draws)
    prompts = ["", "", "a red duck, front view", "a red duck, back view"]
    ids = pipe.tokenizer(prompts, padding="max_length", max_length=TOKENS, return_tensors="pt").input_ids
    with torch.no_grad():
        noisy = pipe.scheduler.add_noise(latents, noise, timesteps)
        prediction = pipe.unet(noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), pipe.text_encoder(ids)[0]).sample
        nothing, positive = prediction.chunk(2)
        weight = 1 - pipe.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        error = weight * (nothing + 7.5 * (positive - nothing) - noise)
    (expected,) = torch.autograd.grad((error * latents).sum() / 2, images)
    torch.testing.assert_close(result.gradient, expected, rtol=1e-3, atol=1e-5)


def test_deterministic_and_global_chance_untouched(written: Path):
    state = torch.random.get_rng_state()
    where = cameras(30.0, 100.0)
    loaded = load(written)
    first, again = judge(loaded, where), judge(load(written), where)
    other = judge(loaded, where, seed=1)
    assert torch.equal(first.gradient, again.gradient)
    assert first.loss == again.loss
    assert not torch.equal(first.gradient, other.gradient)
    assert torch.equal(state, torch.random.get_rng_state())


def test_stepping_against_the_gradient_moves_latents_against_the_score(written: Path):
    """The sign is right: an image that descends takes its latents along −w(t)(ε̂ − ε) (same draws)."""
    guidance = load(written, GuidanceSettings(guidance_scale=1.0, perp_neg="off"))
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    latents = guidance.encode(images, torch.Generator().manual_seed(0))
    result = guidance.gradient(images, cameras(0.0), 0.0, torch.Generator().manual_seed(0))
    step = 1e-3 / result.gradient.abs().max()
    moved = guidance.encode(images - step * result.gradient, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    torch.randn(latents.shape, generator=generator)

    def predict(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return guided_noise(
            guidance.predict_noise,
            noisy,
            timesteps,
            guidance.condition(cameras(0.0)),
            GuidanceSettings(guidance_scale=1.0),
        )

    score = score_gradient(latents, predict, guidance.networks.schedule, guidance.settings, 0.0, generator)
    assert float(((moved - latents) * score.gradient).sum()) < 0


def test_prediction_types_are_read_from_the_scheduler(folder: Path):
    where = cameras(30.0)
    gradients = []
    for kind in ("epsilon", "v_prediction", "sample"):
        edit(folder / "scheduler" / "scheduler_config.json", prediction_type=kind)
        gradients.append(judge(load(folder), where).gradient)
    assert not torch.allclose(gradients[0], gradients[1])
    assert not torch.allclose(gradients[1], gradients[2])
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="flow")
    with pytest.raises(ModelError, match="predicts 'flow'"):
        load(folder)


def test_texts_are_those_of_the_model_and_the_encoder_is_freed(written: Path):
    guidance = load(written, prompt="a blue car", negative="ugly")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(written, safety_checker=None)
    texts = ["a blue car, back view", "ugly"]
    ids = pipe.tokenizer(texts, padding="max_length", max_length=TOKENS, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = pipe.text_encoder(ids)[0]
    torch.testing.assert_close(guidance.text.views[2], expected[0])
    torch.testing.assert_close(guidance.text.unconditional, expected[1])
    modules = [value for value in vars(guidance).values() if isinstance(value, torch.nn.Module)]
    assert modules == [guidance.networks.vae]
    assert not any("CLIP" in type(part).__name__ for part in vars(guidance.networks).values())


def test_prompt_view_and_negative_prompt_all_matter(written: Path, tiny: Any):
    base = judge(tiny, cameras(30.0)).gradient
    assert not torch.equal(base, judge(load(written, prompt="a blue car"), cameras(30.0)).gradient)
    assert not torch.equal(base, judge(load(written, negative="ugly"), cameras(30.0)).gradient)
    assert not torch.equal(base, judge(tiny, cameras(80.0)).gradient)
    assert not torch.equal(base, judge(tiny, cameras(30.0, elevation=75.0)).gradient)
    # Without camera conditioning, left and right are both "side".
    assert torch.equal(base, judge(tiny, cameras(-30.0)).gradient)


def test_camera_tokens_reach_the_network(folder: Path, tiny: Any):
    plain = judge(tiny, cameras(30.0)).gradient
    add_camera(folder)
    guidance = load(folder)
    told = judge(guidance, cameras(30.0)).gradient
    assert not torch.equal(plain, told)
    assert not torch.equal(told, judge(guidance, cameras(-30.0)).gradient)
    untold = judge(load(folder, GuidanceSettings(camera_conditioning=False)), cameras(30.0)).gradient
    assert torch.equal(plain, untold)


def test_padded_rows_equal_a_call_of_their_own(folder: Path):
    """The told rows have more tokens: masked in one call or alone in another, it is the same."""
    add_camera(folder)
    guidance = load(folder)
    where = cameras(30.0, 170.0)
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    timesteps = torch.tensor([300, 700])
    with torch.no_grad():
        condition: Condition = guidance.condition(where)
        assert condition.mask is not None
        own = torch.tensor([0, 1, 0, 1, *condition.negatives.sample.tolist(), 0, 1])
        together = guidance.predict_noise(noisy[own], timesteps[own], condition.tokens, condition.mask)
        short = guidance.predict_noise(noisy[own[:-2]], timesteps[own[:-2]], condition.tokens[:-2, :TOKENS], None)
        long = guidance.predict_noise(noisy, timesteps, condition.tokens[-2:], None)
    torch.testing.assert_close(together, torch.cat([short, long]), rtol=1e-4, atol=1e-5)


def test_a_batch_equals_its_samples(folder: Path):
    add_camera(folder)
    guidance = load(folder)
    where = cameras(0.0, 40.0, -120.0)
    noisy = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    timesteps = torch.tensor([100, 500, 900])
    with torch.no_grad():
        together = guided_noise(guidance.predict_noise, noisy, timesteps, guidance.condition(where), guidance.settings)
        for i in range(3):
            condition = guidance.condition(where[i : i + 1])
            one = guided_noise(
                guidance.predict_noise, noisy[i : i + 1], timesteps[i : i + 1], condition, guidance.settings
            )
            torch.testing.assert_close(together[i : i + 1], one, rtol=1e-3, atol=1e-3)


def test_resizing():
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert resized(images, (64, 64)) is images
    # Antialiased: a checkerboard shrinks to its mean, not to one of its colours.
    board = (torch.arange(64).view(1, -1) + torch.arange(64).view(-1, 1)).remainder(2).float().expand(1, 3, 64, 64)
    assert float((resized(board, (16, 16)) - 0.5)[..., 2:-2, 2:-2].abs().max()) < 0.05
    assert resized(images, (16, 32)).shape == (1, 3, 16, 32)
    torch.testing.assert_close(resized(torch.full((1, 3, 8, 8), 0.3), (16, 16)), torch.full((1, 3, 16, 16), 0.3))


@pytest.mark.parametrize("layout", ["tokenizer.json", "vocab.json and merges.txt"])
def test_tokenizer_of_a_few_words_survives_saving(folder: Path, tiny: Any, layout: str):
    vocabulary, merges = tokenizer_of(WORDS)
    place = folder / "tokenizer"
    if layout != "tokenizer.json":
        (place / "tokenizer.json").unlink()
        (place / "vocab.json").write_text(json.dumps(vocabulary))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (place / "merges.txt").write_text("\n".join(lines) + "\n")
    read = transformers.CLIPTokenizer.from_pretrained(place)
    ids = read("a Red duck, front view").input_ids
    whole = [f"{word}</w>" for word in ("a", "red", "duck", ",", "front", "view")]
    assert ids == [vocabulary[token] for token in ("<|startoftext|>", *whole, "<|endoftext|>")]
    assert read.model_max_length == TOKENS
    texts = encode_texts(open_model(str(folder)), Texts("a red duck", ""), Loading(CPU), silent)
    torch.testing.assert_close(texts.views, tiny.text.views)


def test_half_precision_weights_and_the_fp16_variant(folder: Path, tiny: Any):
    expected = judge(tiny, cameras(30.0)).gradient
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        path = folder / part / f"{stem}.safetensors"
        half = {name: value.half() for name, value in load_file(path).items()}
        path.unlink()
        save_file(half, folder / part / f"{stem}.fp16.safetensors", metadata={"format": "pt"})
    guidance = load(folder)
    assert guidance.dtype == torch.float32
    found = judge(guidance, cameras(30.0)).gradient
    assert torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), 0) > 0.99


def test_a_prompt_that_does_not_fit_loses_words_and_keeps_the_view(written: Path):
    told: list[str] = []
    fitting = " ".join(["red"] * (TOKENS - 7))  # start, ",", "front", "three", "quarter", "view", end
    whole = load(written, prompt=fitting, tell=told.append)
    assert not any("too long" in text for text in told)
    cut = load(written, prompt=fitting + " duck car", tell=told.append)
    assert any(f'reads {TOKENS} tokens: "duck car" is left out' in text for text in told)
    torch.testing.assert_close(cut.text.views, whole.text.views)
    load(written, negative=" ".join(["red"] * TOKENS), tell=told.append)
    assert "The negative prompt is too long for the text_encoder" in told[-2]
    with pytest.raises(RequestError, match="not one word fits"):
        load(written, prompt="q" * 40)


def test_settings_reach_the_gradient(tiny: Any):
    where = cameras(40.0)
    base = GuidanceSettings()
    results = [judge(StableDiffusionGuidance(tiny.networks, tiny.text, s), where).gradient for s in (
        base,
        replace(base, guidance_scale=50.0),
        replace(base, perp_neg="off"),
        replace(base, perp_neg="threestudio"),
        replace(base, perp_neg_strength=4.0),
        replace(base, weighting="uniform"),
        replace(base, timestep_range=(0.5, 0.51)),
    )]  # fmt: skip
    for i, one in enumerate(results):
        assert not any(torch.allclose(one, other, rtol=1e-3) for other in results[i + 1 :])


def test_cameras_are_numpy_and_images_may_be_any_float(tiny: Any):
    where = cameras(40.0)
    assert isinstance(where.azimuth, np.ndarray)
    images = torch.rand(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    result = tiny.gradient(images, where, 0.2, torch.Generator().manual_seed(0))
    assert result.gradient.dtype == torch.float32


@pytest.mark.gpu
def test_half_precision_on_cuda_agrees_with_single_on_the_cpu(written: Path, tiny: Any):
    guidance = load(written, device=torch.device("cuda"))
    assert guidance.dtype == torch.float16
    on_gpu = judge(guidance, cameras(30.0, 100.0))
    assert on_gpu.gradient.dtype == torch.float32
    on_cpu = judge(tiny, cameras(30.0, 100.0))
    flat = [result.gradient.flatten().cpu() for result in (on_gpu, on_cpu)]
    assert torch.nn.functional.cosine_similarity(flat[0], flat[1], 0) > 0.99
    assert on_gpu.loss == pytest.approx(on_cpu.loss, rel=0.05)


def test_automatic_perp_neg_is_off_where_the_camera_is_told(tiny: Any):
    where, told = cameras(120.0), CameraProjection(tiny.text.views.shape[-1], n_tokens=2, hidden=8)
    blind = StableDiffusionGuidance(tiny.networks, tiny.text, GuidanceSettings())
    assert len(blind.condition(where).negatives.sample) > 0
    seeing = StableDiffusionGuidance(replace(tiny.networks, camera=told), tiny.text, GuidanceSettings())
    assert len(seeing.condition(where).negatives.sample) == 0
    asked = GuidanceSettings(perp_neg="stable-dreamfusion")
    assert len(StableDiffusionGuidance(seeing.networks, tiny.text, asked).condition(where).negatives.sample) > 0


def test_a_camera_is_asked_by_its_own_prompt(written: Path):
    """Two prompts in one batch give what each gives alone, its Perp-Neg negatives included."""
    both, where = load(written, camera_prompts=("a blue car",)), cameras(30.0, 150.0)
    mixed = both.condition(replace(where, own_prompt=np.array([0, 1])))
    for index, prompt in enumerate(("a red duck", "a blue car")):
        alone = load(written, prompt=prompt).condition(where[index : index + 1])
        rows = mixed.negatives.sample == index
        assert len(alone.negatives) == int(rows.sum()) > 0
        torch.testing.assert_close(mixed.tokens[2 + index], alone.tokens[1])
        torch.testing.assert_close(mixed.tokens[4:][rows], alone.tokens[2:])


def test_a_cameras_prompt_that_does_not_fit_loses_words_too(written: Path):
    told: list[str] = []
    fitting = " ".join(["red"] * (TOKENS - 7))
    cut = load(written, camera_prompts=("a blue car", f"{fitting} duck"), tell=told.append)
    assert f'The prompt of a camera is too long for the text_encoder, which reads {TOKENS} tokens: "duck" is' in told[0]
    assert not any("too long" in text for text in told[1:])
    torch.testing.assert_close(cut.text.views[12:], load(written, prompt=fitting).text.views)
    with pytest.raises(RequestError, match=r"The prompt of a camera is too long.*not one word fits"):
        load(written, camera_prompts=("q" * 40,))


def test_many_prompts_are_encoded_in_parts(written: Path):
    prompts = [f"a {colour} {thing}" for colour in ("red", "blue") for thing in ("duck", "car")] * 3
    texts = load(written, prompt="a duck", negative="ugly", camera_prompts=prompts).text
    assert texts.views.shape[0] == 6 * 13
    alone = load(written, prompt="a duck", negative="ugly").text
    torch.testing.assert_close(texts.views[:6], alone.views)
    torch.testing.assert_close(texts.unconditional, alone.unconditional)
    torch.testing.assert_close(texts.views[6:12], texts.views[30:36])
    assert not torch.allclose(texts.views[6:12], texts.views[12:18])
