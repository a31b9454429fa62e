"""What every test shares: property tests that repeat exactly, and GPU tests that say why they are skipped."""

from __future__ import annotations

import pytest
from hypothesis import settings

# Timings of a shared machine are no failures, and a run that fails must fail again.
settings.register_profile("house", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked gpu, with the reason, where PyTorch sees no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _cuda_is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; PyTorch sees none here"))


def _cuda_is_available() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()
