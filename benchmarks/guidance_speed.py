"""Steps of guidance in figures: ``python -m benchmarks.guidance_speed --device auto --out out/guidance_speed.json``.

Stable Diffusion 2.1's networks in their true size with random weights, pictures of 512², half precision, batches of 1
and 4, Perp-Neg on, under every plan for the memory: steps a second, the most memory, and the share of a step that is
outside the networks (the denoiser's calls, and the VAE forth and back). Then every engine of the hash grid that this
machine has, beside the reference, and one whole generation by Toybox. ``--size tiny`` is the same for a machine without
a GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers as untyped_diffusers
import torch
from torch import Tensor

from backend.cameras import orbit_cameras
from backend.devices import choose_device, described, dtype_of
from backend.errors import SetupError
from backend.field import ENGINES, GridLayout, HashGridConfig, select_engine
from backend.guidance.distillation import NoiseSchedule
from backend.guidance.memory import PLANS, Plan
from backend.guidance.stable_diffusion import StableDiffusionGuidance
from backend.guidance.text_guidance import Networks
from backend.guidance.view_prompts import VIEWS, TextEmbeddings
from backend.job import run_job
from backend.request import GuidanceSettings, OptimizeSettings, RefineSettings, preset
from backend.threads import configure, prepare_environment

diffusers: Any = untyped_diffusers
SIZES: dict[str, dict[str, Any]] = {
    "sd21": {"widths": (320, 640, 1280, 1280), "vae": (128, 256, 512, 512), "heads": (5, 10, 20, 20), "words": 1024},
    "tiny": {"widths": (64, 64, 64, 64), "vae": (32, 32, 32, 32), "heads": (2, 2, 2, 2), "words": 32},
}
SIDES = {"sd21": 64, "tiny": 8}
"""Latent cells along a picture's side."""
AZIMUTHS = (45.0, 135.0, -100.0, 170.0)
"""Of the batch's views; at all of them Perp-Neg has negatives."""


def make_guidance(size: str, device: torch.device) -> StableDiffusionGuidance:
    """Stable Diffusion 2.1's build with random weights, in its own half precision on a GPU."""
    shape, dtype = SIZES[size], dtype_of("auto", device, torch.float16)
    with torch.random.fork_rng(), device:
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(
            sample_size=SIDES[size],
            block_out_channels=shape["widths"],
            cross_attention_dim=shape["words"],
            attention_head_dim=shape["heads"],
            use_linear_projection=True,
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=shape["vae"],
            layers_per_block=2,
            latent_channels=4,
            scaling_factor=0.18215,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        text = TextEmbeddings(torch.randn(len(VIEWS), 77, shape["words"]), torch.randn(77, shape["words"]))
    for network in (unet, vae):
        network.to(dtype).eval().requires_grad_(False)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, device=device).square()
    schedule = NoiseSchedule(torch.cumprod(1 - betas, 0), "v_prediction")
    settings = GuidanceSettings(guidance_scale=50.0, perp_neg="stable-dreamfusion")
    return StableDiffusionGuidance(Networks(vae, unet, schedule), text.to(device, dtype), settings)  # fmt: skip


def seconds(action: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The median time of ``action``, the device waited for, after a run or two that warm it up."""
    times: list[float] = []
    warm = min(repeats, 2)
    for _ in range(repeats + warm):
        started = time.perf_counter()
        action()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[warm:])


def time_steps(guidance: StableDiffusionGuidance, plan: Plan, batch: int, repeats: int) -> dict[str, Any]:
    """One plan at one batch size."""
    device, side = guidance.device, guidance.image_size[0]
    guidance.layout.choose(plan.name)
    where = orbit_cameras(list(AZIMUTHS[:batch]), 15.0, 3.0, 40.0)
    draws = torch.Generator(device).manual_seed(0)
    images = torch.rand(batch, 3, side, side, generator=draws, device=device)
    condition = guidance.condition(where)
    own = torch.cat([torch.arange(batch, device=device).repeat(2), condition.negatives.sample])
    times = torch.full((len(own),), 500, device=device)
    noisy = torch.randn(batch, 4, side // 8, side // 8, generator=draws, device=device)[own]
    if device.type != "cpu":
        torch.accelerator.reset_peak_memory_stats(device)
    step = seconds(lambda: guidance.gradient(images, where, 0.2, draws), device, repeats)
    most = torch.accelerator.max_memory_allocated(device) if device.type != "cpu" else None

    @torch.inference_mode()
    def ask() -> Tensor:
        return guidance.predict_noise(noisy, times, *condition.asked(len(own)))

    def forth_and_back() -> Tensor:
        leaf = images.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(guidance.encode(leaf, draws).sum(), leaf)
        return gradient

    networks = seconds(ask, device, repeats) + seconds(forth_and_back, device, repeats)
    row = {"plan": plan.name, "batch": batch, "rows": len(own), "steps_a_second": round(1 / step, 3)}
    return {**row, "peak_bytes": most, "share_outside_the_networks": round(max(1 - networks / step, 0.0), 4)}


def time_engines(device: torch.device, config: HashGridConfig, points: int) -> list[dict[str, Any]]:
    """Every engine that this machine has: forth and back, and how far it is from the reference."""
    layout, levels = GridLayout(config), config.n_levels
    draws = torch.Generator(device).manual_seed(0)
    x = torch.rand(points, 3, generator=draws, device=device)
    params = torch.rand(layout.n_params, generator=draws, device=device).requires_grad_()
    reference = select_engine(layout, device, "torch").encode(x, params, levels)
    rows: list[dict[str, Any]] = []
    for name in ENGINES[1:]:
        try:
            engine = select_engine(layout, device, name)
        except SetupError as error:
            rows.append({"engine": name, "missing": str(error)})
            continue

        def both(engine: Any = engine) -> None:
            torch.autograd.grad(engine.encode(x, params, levels).square().sum(), params)

        away = float((engine.encode(x, params, levels) - reference).abs().max().detach())
        rows.append({"engine": name, "points": points, "seconds": seconds(both, device, 3), "largest_difference": away})
    return rows


def time_toybox(device: torch.device, size: str) -> dict[str, Any]:
    """One whole generation, from the words to the files; of the tiny size only a few steps."""
    request = preset("standard", "a red duck", device=str(device))
    if size == "tiny":
        short = OptimizeSettings(iterations=2, resolution=16, samples_per_ray=8)
        request = request.replace(optimize=short, refine=RefineSettings(iterations=0))
    with tempfile.TemporaryDirectory(prefix="dreamlathe-") as folder:
        started = time.perf_counter()
        made = run_job(request, Path(folder), lambda _: None, lambda: False)
        metrics = json.loads((made / "metrics.json").read_text(encoding="utf-8"))
    return {"seconds": round(time.perf_counter() - started, 2), "parts": metrics["seconds"]}


def measure(size: str, device: torch.device, repeats: int, *, whole: bool = True) -> dict[str, Any]:
    """Everything, as plain JSON; ``whole`` is with the generation by Toybox."""
    guidance, steps = make_guidance(size, device), list[dict[str, Any]]()
    for plan in PLANS:
        if plan.offload and device.type == "cpu":
            continue
        for batch in (1, 4):
            try:
                steps.append(time_steps(guidance, plan, batch, repeats))
            except torch.OutOfMemoryError as error:
                steps.append({"plan": plan.name, "batch": batch, "full": str(error).splitlines()[0]})
    found: dict[str, Any] = {
        "machine": {**described(device), "processor": platform.machine(), "torch": torch.__version__}
    }
    found |= {"size": size, "dtype": str(guidance.dtype), "image_size": guidance.image_size, "steps": steps}
    del guidance
    whole_grid = size == "sd21"
    grid = HashGridConfig.from_finest(16, 2, 19, 2048) if whole_grid else HashGridConfig.from_finest(4, 2, 10, 64)
    found["engines"] = time_engines(device, grid, 1 << 18 if whole_grid else 1 << 8)
    return {**found, "toybox": time_toybox(device, size)} if whole else found


def main() -> None:
    """Measure, print a table, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", choices=sorted(SIZES), default="sd21")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("out/guidance_speed.json"))
    arguments = parser.parse_args()
    prepare_environment()
    device = choose_device(arguments.device)
    configure(device)
    found = measure(arguments.size, device, arguments.repeats)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"{found['machine']}, {found['size']} networks, {found['dtype']}, pictures of {found['image_size']}\n")
    print("| plan | batch | steps a second | most memory, GB | share outside the networks |\n|---|---|---|---|---|")
    for row in found["steps"]:
        most = f"{row['peak_bytes'] / 1e9:.2f}" if row.get("peak_bytes") else "not known"
        told = row.get("full") or f"{row['steps_a_second']} | {most} | {row['share_outside_the_networks']:.1%}"
        print(f"| {row['plan']} | {row['batch']} | {told} |")
    print("\nEngines:", *found["engines"], "Toybox:", found["toybox"], sep="\n")


if __name__ == "__main__":
    main()
