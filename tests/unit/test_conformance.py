"""Every family of models against diffusers' own pipeline of it, from tiny folders in their true layout."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from torch import Tensor

from backend.guidance.conditioning import guided_noise
from backend.request import GuidanceSettings, RefineSettings
from tests.unit.conformance import PLAIN, SIDE, cameras, judge, load, noise_pictures
from tests.unit.tiny_families import FAMILIES, diffusers, write

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each family; not to be changed."""
    place = tmp_path_factory.mktemp("families")
    return {name: write(name, place / name.replace(" ", "-")) for name in FAMILIES}


def pipeline(folder: Path) -> Any:
    index = json.loads((folder / "model_index.json").read_text())
    empty = {name: None for name, entry in index.items() if entry == [None, None]}
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, **empty)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Caught(Exception):
    """Ends a pipeline's run after the step that was wanted."""


@dataclass
class Step:
    """What a pipeline did in one denoising step."""

    noisy: Tensor
    """[1, …] what its network was shown."""
    time: float
    """The timestep that its scheduler named."""
    guided: Tensor
    """[1, …] what it gave to its scheduler."""


def one_step(pipe: Any, before: int = 0, **call: Any) -> Step:
    """Run a pipeline up to its scheduler's step behind ``before`` others, and look at what passes."""
    network, shown = getattr(pipe, "transformer", None) or pipe.unet, list[Tensor]()

    def look(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        shown.append((arguments[0] if arguments else named["hidden_states"])[:1].clone())

    caught: dict[str, Any] = {}

    go_on = pipe.scheduler.step

    def step(guided: Tensor, time: Any, *others: Any, **named: Any) -> Any:
        if len(shown) <= before:
            return go_on(guided, time, *others, **named)
        caught.update(guided=guided.clone(), time=float(time))
        raise Caught

    handle = network.register_forward_pre_hook(look, with_kwargs=True)
    pipe.scheduler.step = step
    with torch.no_grad(), pytest.raises(Caught):
        pipe(generator=torch.Generator().manual_seed(3), output_type="latent", **call)
    handle.remove()
    return Step(shown[before], **caught)


def noise_by_pipeline(pipe: Any, name: str, negative: str, share: float, scale: float) -> tuple[Tensor, int, Tensor]:
    """Noisy latents, our index of the timestep, and the guided noise that diffusers computes of them."""
    call: dict[str, Any] = {"prompt": "a red duck, front view", "negative_prompt": negative or None}
    flow = name.startswith(("sd3", "flux"))
    call |= {"sigmas": [share]} if flow else {"num_inference_steps": 2 if share < 0.6 else 4}
    call |= (
        {"guidance_scale": scale} if not name.startswith("flux") else {"true_cfg_scale": scale, "guidance_scale": 3.5}
    )
    if name != "if":
        call |= {"height": SIDE, "width": SIDE}
    step = one_step(pipe, int(name == "sd21 zero-snr"), **call)  # its first step knows of nothing
    noisy, guided = step.noisy, step.guided
    if name.startswith("flux"):
        noisy, guided = (pipe._unpack_latents(each, SIDE, SIDE, pipe.vae_scale_factor) for each in (noisy, guided))
    if flow:
        sigma = float(pipe.scheduler.sigmas[0])
        return noisy, round(share * 1000) - 1, noisy + (1 - sigma) * guided
    guided = guided[:, : noisy.shape[1]]  # IF's has its variance behind it
    alpha = pipe.scheduler.alphas_cumprod[int(step.time)]
    noise = {
        "epsilon": guided,
        "v_prediction": alpha.sqrt() * guided + (1 - alpha).sqrt() * noisy,
        "sample": (noisy - alpha.sqrt() * guided) / (1 - alpha).sqrt(),
    }[pipe.scheduler.config.prediction_type]
    return noisy, int(step.time), noise


@pytest.mark.parametrize("negative", ["ugly", ""])
@pytest.mark.parametrize("share", [0.5, 0.75])
@pytest.mark.parametrize("name", FAMILIES)
def test_guided_noise_is_that_of_diffusers_own_pipeline(
    folders: dict[str, Path], name: str, share: float, negative: str
):
    if name.startswith("flux") and not negative:
        negative = "a blue car"  # diffusers leaves guidance out without a negative prompt; ours is the empty prompt
    scale = 7.5 if share == 0.5 else 30.0
    noisy, index, expected = noise_by_pipeline(pipeline(folders[name]), name, negative, share, scale)
    settings = replace(PLAIN, guidance_scale=scale)
    guidance = load(folders[name], settings, negative)
    times = torch.tensor([index])
    with torch.no_grad():
        condition = guidance.condition(cameras(0.0))
        found = guided_noise(guidance.predict_noise, noisy, times, condition, settings)
        blind = guided_noise(guidance.predict_noise, noisy, times, condition, replace(settings, guidance_scale=0.0))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert float((found - blind).abs().max()) > 1e-2  # the words count, so the comparison is of something


def draws_of(guidance: Any, views: int) -> tuple[Tensor, Tensor, Tensor]:
    """The VAE's noise, the timesteps and the noise that a step with seed 0 draws, in that order."""
    draws = torch.Generator().manual_seed(0)
    height, width = (side // 2 if guidance.networks.vae is not None else side for side in guidance.image_size)
    channels = 3 if guidance.networks.vae is None else guidance.networks.vae.config.latent_channels
    shape = (views, channels, height, width)
    spread = torch.zeros(shape) if guidance.networks.vae is None else torch.randn(shape, generator=draws)
    steps = len(guidance.networks.schedule)
    times = torch.randint(int(0.1 * steps), int(0.9 * steps) + 1, (views,), generator=draws)
    return spread, times, torch.randn(shape, generator=draws)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_gradient_is_that_of_straight_autograd(folders: dict[str, Path], name: str):
    """Encode, add noise, guide, weigh and go back, with diffusers' VAE and the schedule written out."""
    guidance, where = load(folders[name]), cameras(0.0, 180.0)
    result = judge(guidance, where)
    pipe, (spread, times, noise) = pipeline(folders[name]), draws_of(guidance, 2)
    images = noise_pictures(2).requires_grad_(True)
    latents = 2 * images - 1
    if name != "if":
        posterior, config = pipe.vae.encode(latents).latent_dist, pipe.vae.config
        latents = (posterior.mean + posterior.std * spread - (config.shift_factor or 0.0)) * config.scaling_factor
    shape = (-1, 1, 1, 1)
    if name.startswith(("sd3", "flux")):
        sigma = guidance.networks.schedule.sigmas[times].view(shape)
        signal, share = 1 - sigma, sigma
        weight = sigma**2 / ((1 - sigma) ** 2 + sigma**2)
    else:
        alpha = pipe.scheduler.alphas_cumprod[times].view(shape)
        signal, share, weight = alpha.sqrt(), (1 - alpha).sqrt(), 1 - alpha
    with torch.no_grad():
        noisy = signal * latents + share * noise
        guided = guided_noise(guidance.predict_noise, noisy, times, guidance.condition(where), PLAIN)
        error = weight * (guided - noise)
    (expected,) = torch.autograd.grad((error * latents).sum() / 2, images)
    torch.testing.assert_close(result.gradient, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    assert result.loss == pytest.approx(0.25 * float(error.square().sum()), rel=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_picture_that_descends_becomes_what_the_model_knows(
    folders: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
):
    """A model that knows one picture only, in its family's own prediction: the loss falls, and the picture nears it."""
    guidance, where = load(folders[name], replace(PLAIN, guidance_scale=1.0)), cameras(0.0)
    schedule = guidance.networks.schedule
    known = guidance.encode(noise_pictures(2)[1:], torch.Generator().manual_seed(0)).detach()

    def knows_one(noisy: Tensor, times: Tensor, *_: Any) -> Tensor:
        signal, spread = schedule.signal_and_noise(times, 4)
        noise = (noisy - signal * known) / spread
        predictions = {
            "epsilon": noise, "v_prediction": signal * noise - spread * known, "sample": known.expand_as(noise),
            "flow": noise - known,
        }  # fmt: skip
        return predictions[schedule.prediction_type]

    monkeypatch.setattr(guidance, "network_output", knows_one)
    images = noise_pictures(1).requires_grad_(True)
    adam, losses = torch.optim.Adam([images], lr=0.03), list[float]()

    def away() -> float:
        latents = guidance.encode(images.detach(), torch.Generator().manual_seed(0))
        return float((latents - known).square().mean())

    at_first = away()
    for _ in range(25):  # one draw of noise throughout: what falls is the loss, not chance
        result = guidance.gradient(images, where, 0.0, torch.Generator().manual_seed(0))
        losses.append(result.loss)
        images.grad = result.gradient
        adam.step()
    assert losses[-1] < 0.5 * losses[0]
    assert away() < 0.5 * at_first


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_the_three_laws_of_perp_neg(folders: dict[str, Path], name: str):
    on = replace(PLAIN, perp_neg="stable-dreamfusion")
    guidance = load(folders[name], on)
    where, times = cameras(-30.0, 180.0, 40.0), torch.tensor([200, 500, 800])
    noisy = torch.randn(guidance.encode(noise_pictures(3), torch.Generator()).shape, generator=torch.Generator())

    def guided(text: Any, settings: GuidanceSettings, at: Any, rows: slice = slice(None)) -> Tensor:
        asked = type(guidance)(guidance.networks, text, settings)
        return guided_noise(asked.predict_noise, noisy[rows], times[rows], asked.condition(at), settings)

    # A negative equal to the positive changes nothing.
    same = replace(guidance.text, views=guidance.text.views[:1].expand_as(guidance.text.views))
    if same.pooled_views is not None:
        same = replace(same, pooled_views=same.pooled_views[:1].expand_as(same.pooled_views))
    torch.testing.assert_close(guided(same, on, where), guided(same, PLAIN, where), rtol=1e-3, atol=1e-3)
    # Each sample meets its own negatives.
    together = guided(guidance.text, on, where)
    for i in range(3):
        one = slice(i, i + 1)
        torch.testing.assert_close(together[one], guided(guidance.text, on, where[one], one), rtol=1e-3, atol=1e-3)
    # Toggling changes nothing but Perp-Neg: nothing at all from above, and elsewhere at right angles to the prompt.
    above = cameras(-30.0, 180.0, 40.0, elevation=80.0)
    assert torch.equal(guided(guidance.text, on, above), guided(guidance.text, PLAIN, above))
    plain = guided(guidance.text, PLAIN, where)
    direction = plain - guided(guidance.text, replace(PLAIN, guidance_scale=0.0), where)
    added = together - plain
    assert float(added.abs().max()) > 1e-3
    assert float(torch.cosine_similarity(added.flatten(1), direction.flatten(1)).abs().max()) < 1e-2


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_from_a_hub_cache_without_a_network(
    folders: dict[str, Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = judge(load(folders[name]), cameras(30.0)).gradient
    home = tmp_path / "models--tiny--model"
    (home / "snapshots").mkdir(parents=True)
    (home / "snapshots" / ("0" * 40)).symlink_to(folders[name])
    for reference in ("main", "v2"):
        (home / "refs").mkdir(exist_ok=True)
        (home / "refs" / reference).write_text("0" * 40)

    def no_network(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", no_network)
    for model in ("tiny/model", "tiny/model@v2"):
        found = judge(load(Path(model), allow_download=True), cameras(30.0)).gradient
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_paints(folders: dict[str, Path], name: str):
    """From a noise without any signal too; strength 0 gives the picture back as the VAE sees it."""
    guidance, settings = load(folders[name]), RefineSettings(sampling_steps=3)
    for strength in (0.5, 1.0):
        made = guidance.repaint(noise_pictures(2), cameras(0.0, 90.0), strength, settings, torch.Generator())
        assert made.shape == (2, 3, SIDE, SIDE)
        assert torch.isfinite(made).all()
        assert float(made.min()) >= 0.0
        assert float(made.max()) <= 1.0


def test_a_guidance_distilled_model_is_told_its_scale(folders: dict[str, Path]):
    where = cameras(0.0)
    one, other = (judge(load(folders["flux dev"], replace(PLAIN, embedded_scale=each)), where) for each in (1.0, 9.0))
    assert not torch.allclose(one.gradient, other.gradient, rtol=1e-3)
    same = [judge(load(folders["flux schnell"], replace(PLAIN, embedded_scale=each)), where) for each in (1.0, 9.0)]
    assert torch.equal(same[0].gradient, same[1].gradient)


def test_a_schedule_that_ends_without_signal(folders: dict[str, Path]):
    """Its last timestep says nothing of the picture: a gradient of zero, not NaN."""
    guidance = load(folders["sd21 zero-snr"], replace(PLAIN, timestep_range=(1.0, 1.0)))
    schedule = guidance.networks.schedule
    assert float(schedule.alphas_cumprod[-1]) == 0.0
    assert schedule.last == 996  # the ones behind it have next to none
    result = judge(guidance, cameras(0.0))
    assert result.diagnostics["timestep"] == 999
    assert result.diagnostics["nonfinite"] == 0
    assert float(result.gradient.abs().max()) < 1e-4
    assert float(judge(load(folders["sd21 zero-snr"]), cameras(0.0)).gradient.abs().max()) > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_a_camera_is_asked_by_its_own_prompt(folders: dict[str, Path], name: str):
    """Tokens, pooled texts and Perp-Neg's negatives are its prompt's: as if each of the batch had a job of its own."""
    on, prompts = replace(PLAIN, perp_neg="stable-dreamfusion"), ("a red duck", "a blue car")
    both, where, times = load(folders[name], on, camera_prompts=prompts[1:]), cameras(150.0, 30.0), torch.tensor([500])
    latents = both.encode(noise_pictures(1), torch.Generator().manual_seed(0))
    mixed = both.condition(replace(where, own_prompt=np.array([1, 0])))
    same = both.condition(where)
    assert (mixed.pooled is not None) == name.startswith(("sdxl", "sd3", "flux"))
    together, plain = (
        guided_noise(both.predict_noise, latents.expand(2, -1, -1, -1), times.expand(2), each, on)
        for each in (mixed, same)
    )
    for index, prompt in enumerate(reversed(prompts)):
        single = load(folders[name], on, prompt=prompt)
        alone = single.condition(where[index : index + 1])
        mine = torch.tensor([index, 2 + index, *(4 + (mixed.negatives.sample == index).nonzero().flatten()).tolist()])
        assert len(mine) == len(alone.tokens) > 2
        torch.testing.assert_close(mixed.tokens[mine], alone.tokens)
        if alone.pooled is not None:
            torch.testing.assert_close(mixed.pooled[mine], alone.pooled)
            assert torch.equal(mixed.pooled[2 + index], same.pooled[2 + index]) is (prompt == prompts[0])
        expected = guided_noise(single.predict_noise, latents, times, alone, on)
        torch.testing.assert_close(together[index : index + 1], expected, rtol=1e-3, atol=1e-3)
    assert float((together - plain)[0].abs().max()) > 1e-2  # the first is seen by the other prompt now


def test_attention_is_torchs_own(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    """scaled_dot_product_attention, which picks the fastest and leanest kernel of a device."""
    calls: list[int] = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def counted(*arguments: Any, **named: Any) -> Tensor:
        calls.append(1)
        return plain(*arguments, **named)

    for name in ("sd15", "sdxl", "if", "sd3", "flux dev"):
        guidance = load(folders[name])
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
            calls.clear()
            judge(guidance, cameras(0.0))
        assert calls, name
