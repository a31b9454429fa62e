"""stable-dreamfusion's pure-PyTorch path beside us: the same 2D networks, the same image size, the same machine.

To put it in place::

    git clone https://github.com/ashawkey/stable-dreamfusion out/stable-dreamfusion
    python -m benchmarks.speed --only step --peer out/stable-dreamfusion

Nothing of it is part of this repository, and it is not changed. It imports packages that need CUDA, a compiler or a
window even where it uses none of them; those that are missing here are stood in for by empty modules, made as it asks
for them. What is timed is its own: data set, model (``--backbone vanilla``, the only one in plain PyTorch),
``train_step`` at its defaults after the latent phase (shaded, 64 + 32 samples a ray), backward pass and Adan. In place
of its Stable Diffusion stands a score distillation by Toybox's UNet, by the same code as ours.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Generator, MutableSequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backend.cameras import CameraBatch, orbit_cameras

from .cases import Row, Stopwatch, gained, peak_bytes

ROOM = (
    "cv2", "trimesh", "nvdiffrast", "mcubes", "raymarching", "meshutils", "imageio", "psutil", "tensorboardX",
    "matplotlib", "torchvision", "torchmetrics", "torch_ema", "rich", "tqdm", "pandas", "encoding_cuda",
)  # fmt: skip
"""Packages that may be missing, and that a step of this path does not use."""
FORCED = ("nvdiffrast", "raymarching", "meshutils", "cv2", "mcubes")
"""Those of them that would build or load CUDA code, or a window's, if they were there."""
PHASE = 0.5
"""Share of the run at which its steps are timed: behind the latent phase, in the middle as ours."""


class Anything:
    """What a stand-in's names are: classes that take any arguments and do nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass


class Nothing(types.ModuleType):
    """An empty module: any name in it is a class that takes anything."""

    __path__: MutableSequence[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (Anything,), {})
        setattr(self, name, made)
        return made


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what is in :data:`ROOM` and missing here."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """A stand-in for a package of the room, or for a part of one."""
        del target
        package = fullname.partition(".")[0]
        if package not in ROOM:
            return None
        if package not in FORCED and (path is None or not isinstance(sys.modules.get(package), Nothing)):
            for finder in (f for f in sys.meta_path if f is not self):
                found = finder.find_spec(fullname, path)
                if found is not None:
                    return found
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """The empty module."""
        return Nothing(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing is run."""


@contextlib.contextmanager
def at_home(folder: Path) -> Generator[None]:
    """With the clone on the path and the stand-ins behind it."""
    finder = StandIns()
    sys.meta_path.insert(0, finder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.meta_path.remove(finder)


def options(side: int) -> types.SimpleNamespace:
    """Its command line's defaults with ``--backbone vanilla``, as of its last release (main.py)."""
    return types.SimpleNamespace(
        backbone="vanilla", bound=1, dmtet=False, cuda_ray=False, taichi_ray=False, min_near=0.01, density_thresh=10,
        density_activation="exp", blob_density=5, blob_radius=0.2, bg_radius=1.4, num_steps=64, upsample_steps=32,
        max_ray_batch=4096, images=None, w=side, h=side, batch_size=1, iters=10_000, exp_start_iter=0,
        exp_end_iter=10_000, progressive_view=False, progressive_level=False, known_view_interval=4,
        latent_iter_ratio=0.2, albedo_iter_ratio=0.0, min_ambient_ratio=0.1, textureless_ratio=0.2, perpneg=False,
        guidance_scale=100, lambda_guidance=1, lambda_entropy=1e-3, lambda_opacity=0, lambda_orient=1e-2,
        lambda_2d_normal_smooth=0, lambda_3d_normal_smooth=0, lambda_normal=0, lambda_tv=0, lambda_wd=0,
        radius_range=[3.0, 3.5], theta_range=[45, 105], phi_range=[-180, 180], fovy_range=[10, 30],
        default_radius=3.2, default_polar=90, default_azimuth=0, default_fovy=20, angle_overhead=30, angle_front=60,
        jitter_pose=False, jitter_center=0.2, jitter_target=0.2, jitter_up=0.02, uniform_sphere_rate=0, lr=1e-3,
    )  # fmt: skip


class ToyboxInItsPlace:
    """Its guidance's ``train_step``, answered by our networks for a camera of ours."""

    def __init__(self, guidance: Any) -> None:
        self.guidance = guidance
        self.draws = torch.Generator().manual_seed(0)
        self.camera: CameraBatch = orbit_cameras(30.0, 15.0, 3.2, 20.0)

    def train_step(self, _words: Tensor, images: Tensor, **_: Any) -> Tensor:
        """A loss whose gradient by ``images`` [B, 3, H, W] is that of score distillation."""
        result = self.guidance.gradient(images.detach().clamp(0, 1), self.camera, PHASE, self.draws)
        return (images * result.gradient).sum()


def peer_row(folder: Path, runs: int, side: int = 64) -> Row:
    """Its whole step; raises FileNotFoundError with what to do where the clone is not in place."""
    from .steps import work

    if not (folder / "nerf" / "network.py").is_file():
        raise FileNotFoundError(
            f"There is no stable-dreamfusion in {folder}: clone it there, see benchmarks/speed/peer.py."
        )
    guidance = work("toybox").guidance
    before = peak_bytes()
    with at_home(folder.resolve()):
        stepper = _Peer(ToyboxInItsPlace(guidance), side)
        stepper.step()
        times = Stopwatch()
        for _ in range(runs):
            times.run(stepper.step)
    return times.row("whole step", "stable-dreamfusion, PyTorch", {"side": side}, gained(before), {})


class _Peer:
    """Its trainer's inner loop, without its log, its progress bar and its files."""

    def __init__(self, guidance: ToyboxInItsPlace, side: int) -> None:
        network, provider, self.utils, adan = (
            importlib.import_module(name) for name in ("nerf.network", "nerf.provider", "nerf.utils", "optimizer")
        )
        opt = options(side)
        device = torch.device("cpu")
        self.model: nn.Module = network.NeRFNetwork(opt)
        self.model.train()
        words = {name: torch.zeros(1, 1, 1) for name in ("uncond", "default", "front", "side", "back")}
        self.trainer = types.SimpleNamespace(
            opt=opt, model=self.model, device=device, global_step=round(PHASE * opt.iters),
            guidance={"SD": guidance}, embeddings={"SD": words},
        )  # fmt: skip
        self.data: Any = provider.NeRFDataset(opt, device=device, type="train", H=side, W=side, size=100)
        build: Any = adan.Adan
        groups: Any = self.model.get_params(5 * opt.lr)  # pyright: ignore[reportCallIssue]
        self.optimizer: Any = build(groups, eps=1e-8, weight_decay=2e-5, max_grad_norm=5.0, foreach=False)

    def step(self) -> None:
        """One step."""
        self.optimizer.zero_grad()
        _, _, loss = self.utils.Trainer.train_step(self.trainer, self.data.collate([0]))
        loss.backward()
        self.optimizer.step()
