"""How often a step asks the device for a number: on a GPU it waits there for all that was asked before."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from backend.errors import Cancelled
from backend.optimize import loop, optimize
from tests.unit.silhouette import SilhouetteGuidance, small_request

WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")
"""Operators whose result the processor has to know: numbers, and shapes that depend on values."""
MOST = 8
"""Guidance's loss, samples behind what is opaque, the gradient's norm, the mean opacity, the health; now and then the
parameters, the occupied cells, and cells that have a dent."""


class Waits(TorchDispatchMode):
    """Counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def waits(folder: Path, steps: range) -> list[Counter[str]]:
    """What each of some steps waits for."""
    counted: list[Counter[str]] = []
    at = -1
    mode = Waits()

    def asked() -> bool:
        nonlocal at
        at += 1
        if at - 1 in steps:
            counted.append(Counter(mode.found))
        mode.found.clear()
        return at > steps[-1] + 1

    request = small_request(40, preview_every=1000, checkpoint_every=1000)
    with mode, pytest.raises(Cancelled):
        optimize(request, folder, SilhouetteGuidance(), torch.device("cpu"), lambda _: None, asked)
    return counted


def test_a_step_waits_for_the_device_a_few_times_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("_PREVIEW_SECONDS", "_PREVIEW_LIMIT"):  # a preview comes by the clock, and waits as well
        monkeypatch.setattr(loop, limit, float("inf"))
    found = waits(tmp_path, range(17, 32))
    assert len(found) == 15
    assert max(sum(each.values()) for each in found) <= MOST, found
    assert min(sum(each.values()) for each in found) > 0


def test_the_count_sees_what_waits() -> None:
    mode = Waits()
    with mode:
        values = torch.arange(4.0)
        _ = float(values.sum())
        _ = values.nonzero()
        _ = values + 1
    assert mode.found == {"_local_scalar_dense": 1, "nonzero": 1}
