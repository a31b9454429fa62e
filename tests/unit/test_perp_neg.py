"""Perp-Neg: both published schedules, the formula at any batch size, and its three laws."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from backend.guidance.conditioning import build_condition, guided_noise
from backend.guidance.perp_neg import (
    Negatives,
    combine,
    negative_weights,
    perpendicular,
    select_negatives,
    stable_dreamfusion_weights,
    threestudio_weights,
)
from backend.guidance.view_prompts import TextEmbeddings, view_weights
from backend.request import GuidanceSettings

CPU = torch.device("cpu")
JUST_BELOW_90 = 90.0 - 1e-9

# Azimuth, stable-dreamfusion front and side, threestudio front and side: computed from both projects' code.
PUBLISHED = [
    (0.0, 0.0, 2.000, 0.000, 1.574),
    (18.0, 0.404, 0.271, 0.255, 1.193),
    (30.0, 0.527, 0.071, 0.440, 0.960),
    (45.0, 0.736, 0.013, 0.689, 0.689),
    (60.0, 1.027, 0.002, 0.960, 0.440),
    (75.0, 1.433, 0.0, 1.254, 0.211),
    (JUST_BELOW_90, 2.000, 0.0, 1.574, 0.000),
    (90.0, 2.000, 0.0, 1.574, 0.001),
    (120.0, 2.000, 0.001, 1.684, 0.111),
    (150.0, 2.000, 0.036, 1.814, 0.241),
    (180.0, 2.000, 1.000, 1.967, 0.394),
]


@dataclass
class RecordingNetwork:
    """A network whose noise depends, not linearly, on latent, timestep and tokens; it remembers what it was asked."""

    noisy: list[Tensor] = field(default_factory=list)
    timesteps: list[Tensor] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)

    def __call__(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is None or mask.shape == tokens.shape[:2]
        self.noisy += list(noisy)
        self.timesteps += list(timesteps)
        self.tokens += list(tokens)
        if mask is not None:
            tokens = tokens * mask.unsqueeze(-1)
        return torch.stack([self.noise(x, t, c) for x, t, c in zip(noisy, timesteps, tokens, strict=True)])

    @staticmethod
    def noise(noisy: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        pushes = tokens.sum(0)[: noisy.numel()].view_as(noisy)
        return torch.sin(3 * noisy + 0.01 * timestep) + torch.cos(2 * pushes + noisy) * noisy.square()


AT_25 = GuidanceSettings(guidance_scale=25.0)


def single(values: list[float]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def make_text(seed: int = 0) -> TextEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    return TextEmbeddings(torch.randn(6, 3, 48, generator=generator), torch.randn(3, 48, generator=generator))


def make_latents(batch: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 4, 3, 3, generator=generator), torch.randint(0, 1000, (batch,), generator=generator)


def formula(
    text: TextEmbeddings,
    noisy: Tensor,
    timesteps: Tensor,
    azimuth: list[float],
    elevation: list[float],
    scale: float,
    weights: np.ndarray,
) -> Tensor:
    """Perp-Neg written out sample by sample, in double precision, all negatives evaluated."""
    network, rows = RecordingNetwork.noise, []
    shares = view_weights(azimuth, elevation, 60.0)
    for index in range(len(noisy)):
        x, t = noisy[index].double(), timesteps[index]
        positive = torch.einsum("v,vtd->td", torch.from_numpy(shares[index]), text.views.double())
        nothing = network(x, t, text.unconditional.double())
        e_pos = network(x, t, positive) - nothing
        total = e_pos.clone()
        for view in (0, 1):
            e = network(x, t, text.views[view].double()) - nothing
            total -= float(weights[index, view]) * (e - (e * e_pos).sum() / (e_pos * e_pos).sum() * e_pos)
        rows.append(nothing + scale * total)
    return torch.stack(rows).float()


@pytest.mark.parametrize(("azimuth", "front", "side", "front_ts", "side_ts"), PUBLISHED)
def test_schedules_are_the_published_ones(azimuth: float, front: float, side: float, front_ts: float, side_ts: float):
    for sign in (1.0, -1.0):
        np.testing.assert_allclose(stable_dreamfusion_weights([sign * azimuth], 2.0), [[front, side]], atol=6e-4)
        np.testing.assert_allclose(threestudio_weights([sign * azimuth], 2.0), [[front_ts, side_ts]], atol=6e-4)


@given(st.floats(-180.0, 180.0), st.floats(0.0, 20.0))
def test_weights_are_never_negative_and_grow_with_strength(azimuth: float, strength: float):
    for schedule in (stable_dreamfusion_weights, threestudio_weights):
        weights = schedule([azimuth], strength)
        assert weights.min() >= 0.0
        np.testing.assert_allclose(weights * 2, schedule([azimuth], strength * 2), rtol=1e-12)


@pytest.mark.parametrize("schedule", ["stable-dreamfusion", "threestudio", "off"])
def test_overhead_views_and_off_have_no_negatives(schedule: str):
    chosen = GuidanceSettings(perp_neg=schedule)  # pyright: ignore[reportArgumentType]
    weights = negative_weights(chosen, [0.0, 45.0, 180.0], [60.0, 89.0, 60.0])
    assert not weights.any()
    assert len(select_negatives(weights, CPU)) == 0
    assert negative_weights(chosen, [45.0], [59.0]).any() == (schedule != "off")


def test_perpendicular_part_is_perpendicular_over_the_whole_sample():
    generator = torch.Generator().manual_seed(3)
    vectors, reference = torch.randn(2, 5, 4, 6, 6, generator=generator)
    away = perpendicular(vectors, reference)
    assert (away * reference).flatten(1).sum(1).abs().max() < 1e-3
    along = vectors - away
    ratio = along / reference
    assert (ratio.flatten(1).std(1) / ratio.flatten(1).mean(1).abs()).max() < 1e-2
    torch.testing.assert_close(perpendicular(vectors, torch.zeros_like(vectors)), vectors)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("schedule", ["stable-dreamfusion", "threestudio"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_formula_at_any_batch_size(batch: int, schedule: str, seed: int):
    azimuth, elevation = [[20.0], [-170.0, 35.0], [100.0, -5.0, 160.0]][batch - 1], [5.0, 30.0, -10.0][:batch]
    chosen = GuidanceSettings(perp_neg=schedule, guidance_scale=7.5)  # pyright: ignore[reportArgumentType]
    text, (noisy, timesteps) = make_text(seed), make_latents(batch, seed)
    condition = build_condition(text, single(azimuth), single(elevation), chosen)
    guided = guided_noise(RecordingNetwork(), noisy, timesteps, condition, chosen)
    weights = negative_weights(chosen, azimuth, elevation)
    # Weights below the threshold are left out, and each of them would have moved ε̂ by at most s·w·‖e‖.
    weights = np.where(weights > 1e-3, weights, 0.0)
    expected = formula(text, noisy, timesteps, azimuth, elevation, 7.5, weights)
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-4)


@given(st.lists(st.tuples(st.floats(-180, 180), st.floats(-90, 90)), min_size=1, max_size=5), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_batch_equals_its_samples_one_by_one(views: list[tuple[float, float]], seed: int):
    azimuth, elevation = single([v[0] for v in views]), single([v[1] for v in views])
    chosen, text = GuidanceSettings(), make_text(seed)
    noisy, timesteps = make_latents(len(views), seed)
    together = guided_noise(
        RecordingNetwork(), noisy, timesteps, build_condition(text, azimuth, elevation, chosen), AT_25
    )
    for i in range(len(views)):
        one = slice(i, i + 1)
        alone = build_condition(text, azimuth[one], elevation[one], chosen)
        lone = guided_noise(RecordingNetwork(), noisy[one], timesteps[one], alone, AT_25)
        torch.testing.assert_close(together[one], lone, rtol=1e-4, atol=1e-3)


def test_law_1_a_negative_equal_to_the_positive_changes_nothing():
    generator = torch.Generator().manual_seed(5)
    unconditional, positive = torch.randn(2, 3, 4, 8, 8, generator=generator)
    own = torch.tensor([0, 0, 1, 2, 2])
    negatives = Negatives(own, torch.tensor([0, 1, 0, 0, 1]), torch.tensor([2.0, 1.0, 4.0, 0.5, 3.0]))
    with_negatives = combine(unconditional, positive, positive[own], negatives, 25.0)
    without = unconditional + 25.0 * (positive - unconditional)
    torch.testing.assert_close(with_negatives, without, rtol=1e-4, atol=1e-3)
    # The test can fail: another negative does change something.
    other = combine(unconditional, positive, positive[own].flip(0), negatives, 25.0)
    assert (other - without).abs().max() > 1.0


def test_law_2_each_sample_meets_its_own_negatives():
    azimuth, elevation = single([-30.0, 180.0, 0.0, 40.0]), single([0.0, 0.0, 0.0, 80.0])
    text, (noisy, timesteps) = make_text(), make_latents(4)
    network = RecordingNetwork()
    guided_noise(network, noisy, timesteps, build_condition(text, azimuth, elevation, GuidanceSettings()), AT_25)
    front, side = text.views[0], text.views[1]
    expected = [(0, front), (0, side), (1, front), (1, side), (2, side)]  # 0° is the front itself; 80° is overhead
    assert len(network.noisy) == 2 * 4 + len(expected)
    for row, (sample, tokens) in enumerate(expected, start=8):
        torch.testing.assert_close(network.noisy[row], noisy[sample], rtol=0, atol=0)
        assert network.timesteps[row] == timesteps[sample]
        torch.testing.assert_close(network.tokens[row], tokens, rtol=0, atol=0)
    for row in range(8):
        torch.testing.assert_close(network.noisy[row], noisy[row % 4], rtol=0, atol=0)
        assert network.timesteps[row] == timesteps[row % 4]


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5, 100.0])
def test_law_3_toggling_changes_nothing_but_perp_neg(scale: float):
    text, (noisy, timesteps) = make_text(), make_latents(2)

    def guided(chosen: GuidanceSettings, elevation: float) -> Tensor:
        place = single([elevation, elevation])
        condition = build_condition(text, single([60.0, -150.0]), place, chosen)
        return guided_noise(RecordingNetwork(), noisy, timesteps, condition, replace(chosen, guidance_scale=scale))

    on = GuidanceSettings()
    off = replace(on, perp_neg="off")
    # Where no negative has a weight, on and off are equal to the bit: the same scale, the same reference.
    assert torch.equal(guided(on, 75.0), guided(off, 75.0))
    assert torch.equal(guided(replace(on, perp_neg_strength=0.0), 0.0), guided(off, 0.0))
    # And off is classifier-free guidance at that scale.
    shares = view_weights([60.0, -150.0], [0.0, 0.0], 60.0)
    for i, positive in enumerate(text.interpolated(shares)):
        nothing = RecordingNetwork.noise(noisy[i], timesteps[i], text.unconditional)
        direction = RecordingNetwork.noise(noisy[i], timesteps[i], positive) - nothing
        torch.testing.assert_close(guided(off, 0.0)[i], nothing + scale * direction, rtol=1e-4, atol=1e-4)
    # Switched on, only what is perpendicular to the positive direction is added.
    added = guided(on, 0.0) - guided(off, 0.0)
    assert (added.abs().max() > 0.1) == (scale > 0)
    direction = guided(replace(off), 0.0) - torch.stack(
        [RecordingNetwork.noise(x, t, text.unconditional) for x, t in zip(noisy, timesteps, strict=True)]
    )
    cosine = torch.nn.functional.cosine_similarity(added.flatten(1), direction.flatten(1))
    assert cosine.abs().max() < 1e-3


def test_a_plain_negative_is_taken_away_whole():
    noise = torch.randn(4, 1, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    unconditional, positive, front, side = noise
    index = torch.tensor([0, 0])
    negatives = Negatives(index, torch.tensor([0, 1]), torch.tensor([2.0, 0.5]))
    both = torch.cat([front, side])
    whole = combine(unconditional, positive, both, negatives, 7.0, projected=False)
    away = 2.0 * (front - unconditional) + 0.5 * (side - unconditional)
    torch.testing.assert_close(whole, unconditional + 7.0 * (positive - unconditional - away))
    assert not torch.allclose(whole, combine(unconditional, positive, both, negatives, 7.0))


def test_a_weight_of_zero_costs_no_evaluation():
    text = make_text()

    def evaluations(azimuth: list[float], elevation: list[float], chosen: GuidanceSettings) -> int:
        noisy, timesteps = make_latents(len(azimuth))
        network = RecordingNetwork()
        condition = build_condition(text, single(azimuth), single(elevation), chosen)
        guided_noise(network, noisy, timesteps, condition, AT_25)
        return len(network.noisy)

    on = GuidanceSettings()
    assert evaluations([0.0], [0.0], replace(on, perp_neg="off")) == 2
    assert evaluations([0.0], [0.0], on) == 3  # side
    assert evaluations([40.0], [0.0], on) == 4  # front and side
    assert evaluations([90.0], [0.0], on) == 3  # front
    assert evaluations([180.0], [0.0], on) == 4
    assert evaluations([40.0], [60.0], on) == 2  # overhead
    assert evaluations([0.0, 40.0, 90.0, 180.0, 40.0], [0.0, 0.0, 0.0, 0.0, 60.0], on) == 10 + 6
    assert evaluations([0.0], [0.0], replace(on, perp_neg="threestudio")) == 3  # its front residue counts as zero


def test_camera_tokens_stand_in_rows_of_their_own():
    text, camera = make_text(), torch.randn(2, 2, 48, generator=torch.Generator().manual_seed(9))
    words = build_condition(text, single([40.0, 90.0]), single([0.0, 0.0]), GuidanceSettings())
    condition = build_condition(text, single([40.0, 90.0]), single([0.0, 0.0]), GuidanceSettings(), camera)
    assert condition.told
    assert condition.mask is not None
    assert condition.tokens.shape == (9, 5, 48)  # unconditional, positive, three negatives, told
    torch.testing.assert_close(condition.tokens[:7, :3], words.tokens, rtol=0, atol=0)
    torch.testing.assert_close(condition.tokens[7:, :3], words.tokens[2:4], rtol=0, atol=0)
    torch.testing.assert_close(condition.tokens[7:, 3:], camera, rtol=0, atol=0)
    assert condition.mask.tolist() == [[1, 1, 1, 0, 0]] * 7 + [[1] * 5] * 2


def test_the_camera_is_added_to_what_the_words_give():
    rng = torch.Generator().manual_seed(3)
    text, camera = make_text(), torch.randn(2, 2, 48, generator=rng)
    noisy, timesteps = torch.randn(2, 4, 3, 3, generator=rng), torch.tensor([100, 800])
    settings = GuidanceSettings(guidance_scale=7.5, camera_scale=3.0)
    place = (single([40.0, 170.0]), single([0.0, 0.0]), settings)
    alone = guided_noise(RecordingNetwork(), noisy, timesteps, build_condition(text, *place), settings)
    condition = build_condition(text, *place, camera)
    answers = torch.randn(len(condition.tokens), 4, 3, 3, generator=rng)
    words = len(condition.tokens) - 2

    def network(latents: Tensor, times: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        assert torch.equal(latents[words:], noisy)
        assert torch.equal(times[words:], timesteps)
        noise = answers.clone()
        noise[:words] = RecordingNetwork()(latents[:words], times[:words], tokens[:words, :3], None)
        return noise

    positive = RecordingNetwork()(noisy, timesteps, condition.tokens[2:4, :3], None)
    guided = guided_noise(network, noisy, timesteps, condition, settings)
    torch.testing.assert_close(guided, alone + 3.0 * (answers[words:] - positive), rtol=1e-5, atol=1e-5)
