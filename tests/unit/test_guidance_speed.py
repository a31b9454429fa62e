"""The benchmark of guidance runs, in its size for a machine without a GPU."""

from __future__ import annotations

import json

import torch

from benchmarks import guidance_speed

CPU = torch.device("cpu")


def test_every_figure_is_measured():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = guidance_speed.measure("tiny", CPU, 1, whole=False)
    finally:
        torch.set_num_threads(before)
    assert [(row["plan"], row["batch"]) for row in found["steps"]] == [
        (plan, batch) for plan in ("fast", "careful", "tiled") for batch in (1, 4)
    ]
    for row in found["steps"]:
        assert row["rows"] > 2 * row["batch"]  # Perp-Neg asks about negatives
        assert row["steps_a_second"] > 0
        assert 0 <= row["share_outside_the_networks"] < 1
    known = {row["engine"]: row for row in found["engines"]}
    assert set(known) == {"torch", "numba", "tinycudann", "nvrtc"}
    assert known["torch"]["largest_difference"] == 0
    assert known["numba"]["largest_difference"] < 1e-5
    assert json.loads(json.dumps(found))["machine"]["device"] == "CPU"


def test_the_whole_size_is_stable_diffusions():
    """On the meta device: the networks that a GPU is measured with have 2.1's number of parameters."""
    guidance = guidance_speed.make_guidance("sd21", torch.device("meta"))
    sizes = [sum(p.numel() for p in n.parameters()) for n in (guidance.networks.denoiser, guidance.networks.vae)]
    assert sizes == [865_910_724, 83_653_863]
    assert guidance.image_size == (512, 512)
