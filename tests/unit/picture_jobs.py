"""What tests of jobs share: who listens to one, and, for those from pictures, a small request and a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from backend.events import Event, Phase
from backend.request import ReferenceSettings
from tests.unit.silhouette import small_request

SETTINGS = ReferenceSettings(rays=16, resolution=32, resolution_start=16)
SMALL = small_request(12, resolution=16, checkpoint_every=4).replace(
    prompt="", device="cpu", view_model="none", reference=SETTINGS
)
SMALL_OPTIONS = (
    *("--set", "optimize.resolution=16", "--set", "optimize.samples_per_ray=24", "--faces", "300"),
    *("--set", "optimize.occupancy_resolution=16", "--set", "reference.rays=12", "--texture-size", "64"),
    *("--iterations", "4", "--grid-resolution", "24", "--device", "cpu", "--view-model", "none"),
)


def disc(size: int = 48, radius: float = 0.6) -> np.ndarray:
    """[S, S, 4]: an orange disc with a blue left half."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    rgba = np.zeros((size, size, 4), np.float32)
    rgba[..., :3] = np.where(x[..., None] < 0, (0.1, 0.3, 0.8), (0.9, 0.5, 0.1))
    rgba[..., 3] = np.hypot(x, y) < radius
    return rgba


def never() -> bool:
    return False


def nothing(_: Event) -> None:
    pass


def stop_after(steps: int) -> Any:
    """Stops when it was asked that often in the steps."""
    stepping, asked = False, 0

    def report(event: Event) -> None:
        nonlocal stepping
        stepping = (isinstance(event, Phase) and event.name == "optimize") or stepping

    def should_stop() -> bool:
        nonlocal asked
        asked += stepping
        return asked > steps

    return report, should_stop
