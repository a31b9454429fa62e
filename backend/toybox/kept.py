"""Large training sets: made in chunks by several processes, kept in a folder, and mapped from there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 200
Arrays = dict[str, NDArray[Any]]
Make = Callable[[int, int], Arrays]
"""Rows ``start`` to ``end`` of every array; other processes can be handed it."""


def kept_arrays(folder: Path, count: int, make: Make, workers: int, report: Callable[[int], None]) -> Arrays:
    """Arrays of ``count`` rows, made once and kept in ``folder``; what an interrupted run finished stays.

    They are mapped from their files, so that processes share them. ``report`` hears how many rows there are.
    """
    whole = folder / "names.txt"  # written last: when it is there, all are whole
    if not whole.exists():
        folder.mkdir(parents=True, exist_ok=True)
        bounds = [(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]
        missing = [b for b in bounds if not _chunk(folder, *b).exists()]
        for done, _ in enumerate(_made(folder, missing, make, workers), 1):
            report(min(count, (len(bounds) - len(missing) + done) * CHUNK))
        whole.write_text("\n".join(_join(folder, bounds, count)), encoding="utf-8")
        for each in bounds:
            _chunk(folder, *each).unlink()
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in whole.read_text("utf-8").split()}


def tell(count: int) -> None:
    """Print how many there are."""
    print("objects", count, flush=True)


def _chunk(folder: Path, start: int, end: int) -> Path:
    return folder / f"chunk-{start}-{end}.npz"


def _made(folder: Path, missing: list[tuple[int, int]], make: Make, workers: int) -> Iterator[None]:
    """One item a finished chunk."""
    if workers <= 1:
        yield from (_keep(folder, *bounds, make) for bounds in missing)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_keep, folder, *bounds, make) for bounds in missing]
        yield from (future.result() for future in as_completed(futures))


def _keep(folder: Path, start: int, end: int, make: Make) -> None:
    path = _chunk(folder, start, end)
    temporary = path.with_name(f"part-{path.name}")
    arrays: Any = make(start, end)
    np.savez(temporary, **arrays)
    temporary.replace(path)


def _join(folder: Path, bounds: list[tuple[int, int]], count: int) -> list[str]:
    """All chunks as one plain array each; their names."""
    joined: dict[str, np.memmap[Any, Any]] = {}
    for start, end in bounds:
        with np.load(_chunk(folder, start, end)) as stored:
            for name in stored.files:
                rows = stored[name]
                if name not in joined:
                    shape = (count, *rows.shape[1:])
                    joined[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", rows.dtype, shape)
                joined[name][start:end] = rows
    for array in joined.values():
        array.flush()
    return list(joined)
