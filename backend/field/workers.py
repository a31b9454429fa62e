"""Worker threads for CPU work that releases the GIL: single-threaded Numba kernels and single-threaded torch calls.

Why not Numba's own threads: its workqueue layer aborts the process when two Python threads call parallel kernels, and
an OpenMP layer beside torch's keeps two pools spinning on the same cores. Threads that sleep between tasks do neither.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_PIECE = 32_704
"""Numbers of a piece: torch shares 32 768 and more among its threads; whole vectors of every processor."""
_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def share_count(work_items: int) -> int:
    """How many shares to split ``work_items`` equal pieces into: torch's thread count, at most one a piece."""
    return max(1, min(torch.get_num_threads(), work_items))


def run_shares(task: Callable[[int, int], object], shares: int) -> None:
    """Call ``task(share, shares)`` for every share at once and wait for all; the first exception is raised again.

    In the workers torch records no gradients and uses one thread. The split must not change any result: callers hand
    whole levels or whole blocks to a share. Even a single share runs in a worker, lest torch splits its sums among
    threads; with one thread in all, the caller does it.
    """
    if torch.get_num_threads() == 1:
        with torch.no_grad():
            for share in range(shares):
                task(share, shares)
        return
    pool = _pool(shares)
    futures = [pool.submit(task, share, shares) for share in range(shares)]
    errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None:
            raise error


def in_pieces(change: Callable[[Tensor], object], tensor: Tensor) -> Tensor:
    """``change`` all numbers of a tensor in place, each by itself, with the same result for every number of threads.

    The last numbers of a thread's share are not computed by vectors, and may differ there by a bit. Tensors of other
    devices, and those whose gradients are recorded, are changed as a whole.
    """
    if tensor.device.type != "cpu" or tensor.requires_grad or not tensor.is_contiguous():
        change(tensor)
        return tensor
    for piece in tensor.view(-1).split(_PIECE):
        change(piece)
    return tensor


def run_kernels(task: Callable[[int, int], object], shares: int) -> None:
    """As :func:`run_shares`, for tasks that call nothing of torch that would start its threads.

    The caller does a share: a thread less is woken, and none for a single share.
    """
    with torch.no_grad():
        if shares == 1 or torch.get_num_threads() == 1:
            for share in range(shares):
                task(share, shares)
            return
        pool = _pool(shares - 1)
        futures = [pool.submit(task, share, shares) for share in range(1, shares)]
        try:
            task(0, shares)
        finally:
            errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None:
            raise error


def _pool(size: int) -> ThreadPoolExecutor:
    with _lock:
        if size not in _pools:
            _pools[size] = _start(size)
        return _pools[size]


def _start(size: int) -> ThreadPoolExecutor:
    """Start all threads now: torch's thread count is a thread's own, but setting it also changes the default."""
    threads = torch.get_num_threads()
    ready = threading.Barrier(size + 1)

    def prepare() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread's first question settles its count, so ask before the default is restored
        torch.set_grad_enabled(False)
        ready.wait()

    pool = ThreadPoolExecutor(size, thread_name_prefix="dreamlathe-field", initializer=prepare)
    for _ in range(size):
        pool.submit(_nothing)
    ready.wait()
    torch.set_num_threads(threads)
    return pool


def _nothing() -> None:
    pass


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)
