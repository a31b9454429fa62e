"""Devices behind torch's interface: CUDA, ROCm (which torch calls cuda), Apple's MPS, Intel's XPU, and the CPU."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path
from typing import Any, Literal

import torch

from .errors import RequestError

Precision = Literal["auto", "fp32", "fp16", "bf16"]
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_UNKNOWN = (RuntimeError, AttributeError, NotImplementedError, AssertionError)
"""What a backend raises that cannot say."""
_AUTOMATIC = ("cuda", "xpu")
"""Accelerators that are chosen without being asked for; MPS lacks float64, which some parts of a run may use."""


def choose_device(name: str) -> torch.device:
    """The torch device of a request's ``device``; auto is the accelerator where there is one, else the CPU.

    Raises RequestError for a name that is no device and for a device that this machine lacks.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found if found is not None and found.type in _AUTOMATIC else torch.device("cpu")
    hint = "Choose auto, cpu, or a device of this machine."
    try:
        device = torch.device(name)
        torch.empty(1, device=device).fill_(0.0).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        raise RequestError(f"The device {name!r} is not available.", hint) from None
    return device


def dtype_of(precision: Precision, device: torch.device, half: torch.dtype) -> torch.dtype:
    """The networks' dtype: what is asked for; automatically ``half`` on an accelerator and float32 on the CPU."""
    if precision != "auto":
        return _DTYPES[precision]
    return torch.float32 if device.type == "cpu" else half


def computes_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` is a CPU with instructions for bfloat16 (AVX-512 BF16 or AMX); without, it would be slower."""
    supported: Any = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # AMX comes with it
    return device.type == "cpu" and supported is not None and bool(supported())


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on ``device``, as far as the system says; None where it does not."""
    if device.type == "cpu":
        return main_memory().get("memory_free")
    free = _memory(device).get("memory_free")
    if free is not None and device.type != "mps":
        backend: Any = getattr(torch, device.type)
        # What torch's allocator keeps for itself is free for us.
        with contextlib.suppress(*_UNKNOWN):
            free += int(backend.memory_reserved(device)) - int(backend.memory_allocated(device))
    return free


def described(device: torch.device) -> dict[str, Any]:
    """The device's name, and its free and whole memory in bytes, as far as they are known."""
    if device.type == "cpu":
        return {"device": "CPU", **main_memory()}
    name = device.type.upper()
    with contextlib.suppress(*_UNKNOWN):
        name = str(getattr(torch, device.type).get_device_name(device))
    return {"device": name, **_memory(device)}


def _memory(device: torch.device) -> dict[str, int]:
    """Free and whole memory of an accelerator in bytes, where its backend says so."""
    backend: Any = getattr(torch, device.type, None)
    with contextlib.suppress(*_UNKNOWN):
        if device.type == "mps":
            whole = int(backend.recommended_max_memory())
            return {"memory_free": whole - int(backend.driver_allocated_memory()), "memory": whole}
        free, whole = backend.mem_get_info(device)
        return {"memory_free": int(free), "memory": int(whole)}
    return {}


def release_memory(device: torch.device) -> None:
    """Give back what nothing uses any more."""
    gc.collect()
    if device.type != "cpu":
        with contextlib.suppress(RuntimeError, AttributeError, NotImplementedError):
            torch.accelerator.empty_cache()


def main_memory() -> dict[str, int]:
    """Free and whole main memory in bytes, where the system says so."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
        return {"memory_free": sizes.get("MemAvailable", 0), "memory": sizes.get("MemTotal", 0)}
    return {}
