"""What several modules of unit tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.unit.picture_jobs import disc
from tests.unit.reference_world import write_picture


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small are slower on two threads, much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def threads_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Jobs of one thread, and PyTorch as it was after each."""
    before = torch.get_num_threads()
    monkeypatch.setenv("DREAMLATHE_THREADS", "1")
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """The file of a picture."""
    return write_picture(tmp_path / "disc.png", disc())
