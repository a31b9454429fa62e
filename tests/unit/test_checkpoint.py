"""Checkpoints: whole, bound to their request, and never more than one lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.checkpoint import NEWEST, PREVIOUS, Checkpoint, CheckpointStore
from backend.errors import OutputError


def make(step: int, *, regular: bool = True) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    tensors = {
        "weights": torch.rand(50, 3, generator=generator),
        "grid": torch.rand(4, 4, 4, generator=generator) > 0.5,
        "step": torch.tensor(float(step)),
        "none": torch.zeros(0),
        "generator": generator.get_state(),
    }
    values = {"step": step, "rng": np.random.default_rng(step).bit_generator.state, "loss": 0.1 + 0.2}
    return Checkpoint(tensors, values, regular)


def same(one: Checkpoint | None, other: Checkpoint) -> bool:
    assert one is not None
    assert one.tensors.keys() == other.tensors.keys()
    equal = all(torch.equal(one.tensors[k], v) and one.tensors[k].dtype == v.dtype for k, v in other.tensors.items())
    return equal and one.values == other.values and one.regular == other.regular


def never(text: str) -> None:
    raise AssertionError(text)


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "request")
    assert store.load(never) is None
    store.save(make(1))
    assert same(store.load(never), make(1))


def test_the_previous_one_is_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "request")
    for step in (1, 2, 3):
        store.save(make(step))
    assert same(store.load(never), make(3))
    (tmp_path / NEWEST).unlink()
    assert same(store.load(never), make(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS]


def test_stops_do_not_push_out_the_regular_one(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "request")
    store.save(make(10))
    for step in (11, 12, 13):
        store.save(make(step, regular=False))
    assert same(store.load(never), make(13, regular=False))
    assert same(store.load_regular(), make(10))
    store.save(make(20))
    assert same(store.load_regular(), make(20))


@pytest.mark.parametrize("damage", ["cut", "header", "flipped", "empty", "pickle", "text"])
def test_a_damaged_newest_falls_back_and_says_so(tmp_path: Path, damage: str) -> None:
    store = CheckpointStore(tmp_path, "request")
    store.save(make(1))
    store.save(make(2))
    path = tmp_path / NEWEST
    data = bytearray(path.read_bytes())
    if damage == "pickle":
        torch.save({"weights": torch.zeros(2)}, path)
    else:
        flipped = data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]
        path.write_bytes(
            {"cut": data[:-9], "header": b"\xff" * 8 + data[8:], "flipped": flipped}.get(
                damage, b"x" * (damage == "text")
            )
        )
    said: list[str] = []
    assert same(store.load(said.append), make(1))
    assert len(said) == 1
    assert NEWEST in said[0]
    assert not path.exists()


def test_both_damaged_is_a_fresh_start(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "request")
    store.save(make(1))
    store.save(make(2))
    for name in (NEWEST, PREVIOUS):
        (tmp_path / name).write_bytes(b"{}")
    said: list[str] = []
    assert store.load(said.append) is None
    assert len(said) == 2


def test_another_requests_checkpoint_is_refused_and_kept(tmp_path: Path) -> None:
    CheckpointStore(tmp_path, "one").save(make(1))
    other = CheckpointStore(tmp_path, "other")
    with pytest.raises(OutputError, match="another request"):
        other.load(never)
    assert same(CheckpointStore(tmp_path, "one").load(never), make(1))


@pytest.mark.parametrize("moment", ["write", "sync", "rename"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path, "request")
    store.save(make(1))
    store.save(make(2))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if moment == "write":
            patch.setattr("pathlib.Path.open", full)
        elif moment == "sync":
            patch.setattr("os.fsync", full)
        else:
            patch.setattr("pathlib.Path.replace", full)
        with pytest.raises(OutputError, match="No space left"):
            store.save(make(3))
    assert same(store.load(never), make(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, NEWEST]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "request")
    store.save(make(1))
    store.save(make(2))
    (tmp_path / NEWEST).replace(tmp_path / PREVIOUS)  # the second rename never came
    assert same(store.load(never), make(2))
