"""Background removal by rembg, where it and its model are installed. Nothing is ever downloaded."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .colour import Floats

MODELS = ("birefnet-general", "isnet-general-use", "u2net", "silueta", "u2netp")
"""rembg's general models, the best first; each is one file of that name in its folder."""


def model_folder() -> Path:
    """Where rembg keeps its models: U2NET_HOME, or .u2net in XDG_DATA_HOME or the home folder."""
    home = os.environ.get("U2NET_HOME") or str(Path(os.environ.get("XDG_DATA_HOME") or "~") / ".u2net")
    return Path(os.path.expanduser(home))  # noqa: PTH111  (Path.expanduser fails where there is no home)


def installed_model() -> str | None:
    """The best of rembg's models that could be run here, without importing anything; None without rembg or a model."""
    try:
        if importlib.util.find_spec("rembg") is None:
            return None
        folder = model_folder()
        return next((name for name in MODELS if _is_filled(folder / f"{name}.onnx")), None)
    except (ImportError, ValueError, OSError, AttributeError):
        return None


def neural_alpha(srgb: Floats) -> tuple[Floats | None, str]:
    """Opacity [H, W] of a picture [H, W, 3] sRGB by rembg, and "", or None and why not."""
    name = installed_model()
    if name is None:
        return None, "rembg or its model is not installed"
    try:
        mask = _run(name, Image.fromarray(np.round(srgb * 255.0).astype(np.uint8)))
        alpha = np.asarray(mask.convert("L"), np.float32) / 255.0
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  (without its runtime rembg ends the process by SystemExit)
        return None, f"rembg failed ({type(error).__name__})"
    if alpha.shape != srgb.shape[:2]:
        return None, "rembg gave a mask of another size"
    return alpha, ""


def _run(name: str, image: Image.Image) -> Any:
    rembg = importlib.import_module("rembg")
    with _local_models():
        session = rembg.new_session(name, providers=["CPUExecutionProvider"])
    return rembg.remove(image, session=session, only_mask=True)


@contextlib.contextmanager
def _local_models() -> Generator[None]:
    """Keep rembg from fetching a model anew, which it does through pooch when a file is not the one it expects."""
    try:
        pooch: Any = importlib.import_module("pooch")
    except ImportError:
        yield
        return
    fetch: Callable[..., Any] = pooch.retrieve

    def stay(*_: Any, fname: str, path: str, **__: Any) -> str:
        found = Path(path) / fname
        if not found.is_file():
            raise FileNotFoundError(found)
        return str(found)

    pooch.retrieve = stay
    try:
        yield
    finally:
        pooch.retrieve = fetch


def _is_filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
