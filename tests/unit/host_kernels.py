"""The CUDA kernels of the hash grid as plain C++ on the CPU: the very same source, thread after thread."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from backend.field import GridLayout
from backend.field.nvrtc_engine import BLOCK, SOURCE, NvrtcEngine, macros

KERNELS = ("encode", "encode_backward", "pull", "pull_backward", "finish")
COMPILERS = ("g++", "clang++", "c++")
# What CUDA C++ has beyond C++, as far as the kernels use it, and a launch with arguments as the driver takes them.
SHIM = r"""
#include <cmath>
#include <cstring>
#include <utility>

#define __global__
#define __device__ static inline
struct Index { unsigned x, y, z; };
static Index blockIdx, blockDim, threadIdx;
static inline long long __float2ll_rn(float value) { return std::llrint(value); }
static inline unsigned long long atomicAdd(unsigned long long* where, unsigned long long value) {
    const unsigned long long before = *where;
    *where += value;
    return before;
}
"""
LAUNCH = r"""
template <class... A, std::size_t... I>
static void run(void (*kernel)(A...), void** values, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(values[I])...);
}

template <class... A>
static void over(void (*kernel)(A...), unsigned across, unsigned down, unsigned threads, void** values) {
    blockDim = {threads, 1, 1};
    for (blockIdx.y = 0; blockIdx.y < down; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < across; ++blockIdx.x)
            for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
                run(kernel, values, std::index_sequence_for<A...>{});
}

#define NAMED(kernel) if (!std::strcmp(name, #kernel)) return over(kernel, across, down, threads, values), 0;
extern "C" int launch(const char* name, unsigned across, unsigned down, unsigned threads, void** values) {
    %s
    return 1;
}
"""


def compiler() -> str | None:
    """A C++ compiler of this machine."""
    return next(filter(None, map(shutil.which, COMPILERS)), None)


@functools.cache
def library(features: int, interpolation: str) -> ctypes.CDLL:
    """The kernels, compiled for the CPU."""
    found = compiler()
    assert found is not None
    folder = Path(tempfile.mkdtemp(prefix="dreamlathe-kernels-"))
    named = "\n    ".join(f"NAMED({name})" for name in KERNELS)
    text = SHIM + f'#include "{SOURCE.as_posix()}"\n' + LAUNCH.replace("%s", named)
    (folder / "kernels.cpp").write_text(text, encoding="utf-8")
    flags = [f"-D{name}={value}" for name, value in macros(features, interpolation).items()]
    command = [found, "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", *flags, "kernels.cpp"]
    made = subprocess.run([*command, "-o", "kernels.so"], cwd=folder, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    loaded = ctypes.CDLL(str(folder / "kernels.so"))
    shutil.rmtree(folder)
    return loaded


class HostKernels:
    """Stands where the GPU's kernels stand in the engine."""

    def __init__(self, layout: GridLayout) -> None:
        self._library = library(layout.config.n_features, layout.config.interpolation)

    def launch(self, name: str, blocks: tuple[int, int], *arguments: Tensor | int) -> None:
        """Run a kernel over a grid of blocks."""
        for each in arguments:
            assert not isinstance(each, Tensor) or each.is_contiguous()
        words = [each.data_ptr() if isinstance(each, Tensor) else each for each in arguments]
        held = [ctypes.c_int64(word) for word in words]
        values = (ctypes.c_void_p * len(held))(*[ctypes.addressof(each) for each in held])
        assert self._library.launch(name.encode(), *map(ctypes.c_uint, blocks), ctypes.c_uint(BLOCK), values) == 0


def host_engine(layout: GridLayout) -> NvrtcEngine:
    """The engine, its kernels on the CPU."""
    return NvrtcEngine(layout, torch.device("cpu"), HostKernels(layout))
