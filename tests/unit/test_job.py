"""Jobs: from a request to a folder of results, ended and gone on with, and nothing half-written."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import backend.guidance
import backend.meshing
from backend import job
from backend.errors import (
    Cancelled,
    DivergedError,
    DreamlatheError,
    ModelError,
    OutputError,
    PictureError,
    RequestError,
    SetupError,
    VocabularyError,
)
from backend.events import Event, Failed, Finished, Phase, Preview, Progress, decode
from backend.files import locked
from backend.job import describe, exit_code, run_job
from backend.request import RefineSettings, Request
from tests.unit.picture_jobs import never, nothing
from tests.unit.silhouette import BluePainter, SilhouetteGuidance, small_request

REQUEST = small_request(24, resolution=20, checkpoint_every=10, preview_every=12).replace(device="cpu")
FILES = {
    *("request.json", "log.txt", "events.jsonl", "metrics.json", "preview.png", ".lock"),
    *("checkpoint.safetensors", "checkpoint.previous.safetensors"),
    *("mesh.glb", "mesh.obj", "mesh.mtl", "mesh.png", "turntable.png", "turntable.webp", "thumbnail.png"),
}


@pytest.fixture(autouse=True)
def guidance(monkeypatch: pytest.MonkeyPatch, threads_kept: None) -> list[tuple[Any, ...]]:
    """The stand-in guidance, and one thread; lists the calls to load it."""
    loads: list[tuple[Any, ...]] = []

    def load(*arguments: Any) -> SilhouetteGuidance:
        loads.append(arguments)
        return SilhouetteGuidance()

    monkeypatch.setattr(backend.guidance, "load_guidance", load)
    return loads


class StopAt:
    """Stops at the n-th time it is asked, or when a phase is entered."""

    def __init__(self, asked: int = -1, phase: str = "") -> None:
        self.asked = asked
        self.phase = phase
        self.stop = False
        self.events: list[Event] = []

    def __call__(self) -> bool:
        self.asked -= 1
        return self.stop or self.asked == 0

    def report(self, event: Event) -> None:
        self.events.append(event)
        self.stop = self.stop or (isinstance(event, Phase) and event.name == self.phase)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """A finished job and its events; not to be changed."""
    folder = tmp_path_factory.mktemp("jobs") / "new" / "job"
    events: list[Event] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMLATHE_THREADS", "1")
        patch.setattr(backend.guidance, "load_guidance", lambda *_: SilhouetteGuidance())
        assert run_job(REQUEST, folder, events.append, never) == folder
    return folder, events


def test_a_job_leaves_its_files_and_nothing_else(done: tuple[Path, list[Event]]) -> None:
    folder, _ = done
    assert {path.name for path in folder.iterdir()} == FILES
    assert Request.from_json((folder / "request.json").read_text()) == REQUEST


def test_metrics_tell_what_was_made(done: tuple[Path, list[Event]]) -> None:
    folder, _ = done
    metrics = json.loads((folder / "metrics.json").read_text())
    mesh = backend.meshing.read_mesh(folder / "mesh.glb")
    assert metrics["mesh"] == {"vertices": len(mesh.vertices), "faces": len(mesh.faces), "texture_size": 64}
    assert 0 < metrics["mesh"]["faces"] <= REQUEST.mesh.faces
    assert set(metrics["seconds"]) == {"model", "sketches", "optimize", "mesh", "write"}
    assert metrics["seconds"]["optimize"] > 0
    assert metrics["seconds"]["sketches"] == 0
    assert metrics["seconds"]["mesh"] > 0
    assert metrics["device"] == "cpu"
    assert metrics["optimize"]["steps"] == 24
    assert metrics["versions"]["torch"] == torch.__version__


def test_events_tell_the_story(done: tuple[Path, list[Event]]) -> None:
    folder, events = done
    phases = [event.name for event in events if isinstance(event, Phase)]
    assert list(dict.fromkeys(phases)) == ["environment", "model", "optimize", "mesh", "bake", "done"]
    assert isinstance(events[-1], Finished)
    assert {12, 24} <= {event.step for event in events if isinstance(event, Preview)}  # and more on a slow machine
    progress = [event for event in events if isinstance(event, Progress)]
    assert all(event.seconds_left >= 0 for event in progress)
    assert (progress[-1].step, progress[-1].total) == (100, 100)
    logged = [decode(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert None not in logged
    assert [event for event in logged if isinstance(event, Phase)] == [e for e in events if isinstance(e, Phase)]
    assert "optimize: Optimizing for 24 steps." in (folder / "log.txt").read_text()


def test_the_same_request_gives_the_same_mesh(done: tuple[Path, list[Event]], tmp_path: Path) -> None:
    run_job(REQUEST, tmp_path / "again", nothing, never)
    for name in ("mesh.glb", "mesh.obj", "mesh.png", "turntable.png"):
        assert (tmp_path / "again" / name).read_bytes() == (done[0] / name).read_bytes(), name


@pytest.mark.parametrize("stop", [{"asked": 12}, {"phase": "optimize"}, {"phase": "mesh"}, {"phase": "bake"}], ids=str)
def test_a_stopped_job_goes_on_to_the_same_mesh(done: tuple[Path, list[Event]], tmp_path: Path, stop: Any) -> None:
    switch = StopAt(**stop)
    with pytest.raises(Cancelled):
        run_job(REQUEST, tmp_path, switch.report, switch)
    left = {path.name for path in tmp_path.iterdir()}
    assert "request.json" in left
    assert not left & {"mesh.glb", "metrics.json", "turntable.png", ".partial"}
    assert "Cancelled" in (tmp_path / "log.txt").read_text()
    run_job(REQUEST, tmp_path, nothing, never)
    assert (tmp_path / "mesh.glb").read_bytes() == (done[0] / "mesh.glb").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == FILES


@pytest.mark.parametrize("phase", ["environment", "model"])
def test_a_stop_before_the_first_step_leaves_nothing(tmp_path: Path, phase: str) -> None:
    switch = StopAt(phase=phase)
    with pytest.raises(Cancelled):
        run_job(REQUEST, tmp_path / "job", switch.report, switch)
    assert not (tmp_path / "job").exists()


def test_a_finished_job_is_returned_at_once(
    done: tuple[Path, list[Event]], guidance: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_load", lambda *_: pytest.fail("the model was loaded"))
    before = {path: path.stat().st_mtime_ns for path in done[0].iterdir()}
    events: list[Event] = []
    assert run_job(REQUEST, done[0], events.append, never) == done[0]
    assert events[-1] == Finished(str(done[0]))
    assert {path: path.stat().st_mtime_ns for path in done[0].iterdir()} == before


def test_redo_starts_over_even_for_another_request(tmp_path: Path) -> None:
    run_job(small_request(4, resolution=16).replace(device="cpu"), tmp_path, nothing, never)
    other = small_request(6, resolution=16).replace(device="cpu")
    run_job(other, tmp_path, nothing, never, redo=True)
    assert json.loads((tmp_path / "metrics.json").read_text())["optimize"]["steps"] == 6
    assert Request.from_json((tmp_path / "request.json").read_text()) == other
    assert (tmp_path / "log.txt").read_text().count("dreamlathe on") == 1


def test_another_request_is_refused(done: tuple[Path, list[Event]]) -> None:
    before = {path: path.read_bytes() for path in done[0].iterdir()}
    with pytest.raises(OutputError, match=r"another request .'a red ellipsoid'"):
        run_job(REQUEST.replace(seed=99), done[0], nothing, never)
    assert {path: path.read_bytes() for path in done[0].iterdir()} == before


@pytest.mark.parametrize("name", ["mesh.glb", "metrics.json", "log.txt"])
def test_a_persons_files_are_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=name):
        run_job(REQUEST, tmp_path, nothing, never)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_request_that_cannot_be_read_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text("{")
    with pytest.raises(OutputError, match="cannot be read"):
        run_job(REQUEST, tmp_path, nothing, never)
    assert (tmp_path / "request.json").read_text() == "{"


def test_a_folder_is_one_jobs_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(OutputError, match="Another job is running"):
        run_job(REQUEST, tmp_path, nothing, never)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "error", [VocabularyError("It does not know 'zebra'."), ModelError("No model."), SetupError("No diffusers.")]
)
def test_what_the_model_refuses_leaves_no_folder(
    tmp_path: Path, error: DreamlatheError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise error

    monkeypatch.setattr(backend.guidance, "load_guidance", refuse)
    with pytest.raises(type(error)):
        run_job(REQUEST, tmp_path / "job", nothing, never)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["quantum", "cuda:77", "meta", "mps:3"])
def test_a_device_that_is_not_there_is_said(tmp_path: Path, device: str) -> None:
    with pytest.raises(RequestError, match=f"device '{device}' is not available"):
        run_job(REQUEST.replace(device=device), tmp_path / "job", nothing, never)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_request_is_refused_before_anything(tmp_path: Path) -> None:
    bad = REQUEST.replace(optimize=dataclasses.replace(REQUEST.optimize, iterations=0))
    with pytest.raises(RequestError, match="iterations"):
        run_job(bad, tmp_path / "job", nothing, never)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "job"):
        with pytest.raises(OutputError, match="is not a folder"):
            run_job(REQUEST, folder, nothing, never)


def test_a_read_only_place_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="not writable"):
        run_job(REQUEST, tmp_path / "job", nothing, never)
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_disk_is_said_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="1 MB free, and the job needs"):
        run_job(REQUEST, tmp_path / "job", nothing, never)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_a_folder_that_goes_on(
    done: tuple[Path, list[Event]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_obj(_: Any, path: Path) -> None:
        path.write_bytes(b"half a m")
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(backend.meshing, "write_obj", write_obj)
        with pytest.raises(OutputError, match="No space left"):
            run_job(REQUEST, tmp_path, nothing, never)
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & {"mesh.glb", "mesh.obj", "metrics.json", ".partial"}
    run_job(REQUEST, tmp_path, nothing, never)
    assert (tmp_path / "mesh.glb").read_bytes() == (done[0] / "mesh.glb").read_bytes()


def test_an_empty_mesh_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = backend.meshing.extract_mesh

    def empty(*arguments: Any) -> Any:
        mesh = original(*arguments)
        return dataclasses.replace(mesh, faces=mesh.faces[:0])

    monkeypatch.setattr(backend.meshing, "extract_mesh", empty)
    with pytest.raises(DivergedError, match="empty"):
        run_job(small_request(4, resolution=16).replace(device="cpu"), tmp_path, nothing, never)
    assert not (tmp_path / "mesh.glb").exists()


def test_a_bug_is_in_the_log_and_one_line_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(SilhouetteGuidance):
        def gradient(self, images: Any, cameras: Any, progress: float, generator: Any) -> Any:
            raise ValueError("a bug\nof two lines")

    monkeypatch.setattr(backend.guidance, "load_guidance", lambda *_: Broken())
    with pytest.raises(ValueError, match="a bug") as caught:
        run_job(REQUEST, tmp_path, nothing, never)
    told = describe(caught.value)
    assert (told.code, told.message) == ("error", "ValueError: a bug of two lines")
    log = (tmp_path / "log.txt").read_text()
    assert "Traceback" in log
    assert "in gradient" in log


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")], ids=["cpu", "gpu"])
def test_memory_that_is_full_is_said(tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    class Greedy(SilhouetteGuidance):
        def gradient(self, images: Any, cameras: Any, progress: float, generator: Any) -> Any:
            raise error

    monkeypatch.setattr(backend.guidance, "load_guidance", lambda *_: Greedy())
    with pytest.raises(DreamlatheError, match="memory is full"):
        run_job(REQUEST, tmp_path, nothing, never)


def test_exit_codes() -> None:
    told = [RequestError(""), VocabularyError(""), ModelError(""), PictureError(""), OutputError("")]
    assert {exit_code(describe(error).code) for error in told} == {2}
    assert {exit_code(describe(error).code) for error in (DivergedError(""), SetupError(""), KeyError("x"))} == {1}
    assert exit_code(describe(Cancelled("")).code) == exit_code(describe(KeyboardInterrupt()).code) == 130
    assert describe(RequestError("Bad.", "Do good.")) == Failed("request", "Bad.", "Do good.")


def test_a_job_goes_on_from_the_end_of_another(done: tuple[Path, list[Event]], tmp_path: Path) -> None:
    """Only the steps that are more are made, and metrics.json tells of it; asked again, it is finished."""
    longer = REQUEST.replace(optimize=dataclasses.replace(REQUEST.optimize, iterations=32))
    events: list[Event] = []
    run_job(longer, tmp_path / "job", events.append, never, start_from=done[0])
    steps = [event.step for event in events if isinstance(event, Progress) and event.total == 32]
    assert min(steps) > 24
    assert steps[-1] == 32
    metrics = json.loads((tmp_path / "job" / "metrics.json").read_text())
    assert metrics["start_from"] == REQUEST.digest()
    assert metrics["optimize"]["steps"] == 32
    again: list[Event] = []
    run_job(longer, tmp_path / "job", again.append, never, start_from=done[0])
    assert [event.message for event in again if isinstance(event, Phase)] == ["This request is finished already."]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"seed": 5, "iterations": 32}, "differs in more"), ({"iterations": 24}, "as many steps"), (None, "no job")],
)
def test_what_a_job_cannot_go_on_from(
    done: tuple[Path, list[Event]], tmp_path: Path, changes: dict[str, int] | None, words: str
) -> None:
    values = dict(changes or {})
    optimize = dataclasses.replace(REQUEST.optimize, iterations=values.pop("iterations", 32))
    origin = done[0] if changes is not None else tmp_path
    with pytest.raises(RequestError, match=words):
        run_job(REQUEST.replace(optimize=optimize, **values), tmp_path / "job", nothing, never, start_from=origin)
    assert not (tmp_path / "job").exists()


def test_more_steps_are_distilled_before_the_painting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They follow on the first part of the other job, and the second part is made anew."""
    painters: list[BluePainter] = []

    def load(*_: Any) -> BluePainter:
        painters.append(BluePainter())
        return painters[-1]

    monkeypatch.setattr(backend.guidance, "load_guidance", load)
    request = REQUEST.replace(refine=RefineSettings(iterations=12, views=3, visits=2))
    longer = request.replace(optimize=dataclasses.replace(REQUEST.optimize, iterations=32))
    origin = run_job(request, tmp_path / "origin", nothing, never)
    before = (origin / "checkpoint.safetensors").read_bytes()
    events: list[Event] = []
    run_job(longer, tmp_path / "job", events.append, never, start_from=origin)
    assert any(isinstance(event, Phase) and event.message == "Optimizing for 44 steps." for event in events)
    steps = [event.step for event in events if isinstance(event, Progress) and event.total == 44]
    assert (min(steps) > 24, steps[-1]) == (True, 44)
    assert [(each.calls, len(each.painted)) for each in painters] == [(24, 6), (8, 6)]
    assert json.loads((tmp_path / "job" / "metrics.json").read_text())["optimize"]["steps"] == 44
    assert (origin / "checkpoint.safetensors").read_bytes() == before


def test_a_job_that_goes_on_is_stopped_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same mesh as in one go, and from its own checkpoint."""
    monkeypatch.setattr(backend.guidance, "load_guidance", lambda *_: BluePainter())
    request = REQUEST.replace(refine=RefineSettings(iterations=12, views=3, visits=2))
    longer = request.replace(optimize=dataclasses.replace(REQUEST.optimize, iterations=32))
    origin = run_job(request, tmp_path / "origin", nothing, never)
    whole = run_job(longer, tmp_path / "whole", nothing, never, start_from=origin)
    stop = StopAt()
    stop.asked = 9
    with pytest.raises(Cancelled, match="after step 3"):
        run_job(longer, tmp_path / "parts", stop.report, stop, start_from=origin)
    for name in ("checkpoint.safetensors", "checkpoint.previous.safetensors"):
        (origin / name).unlink()
    run_job(longer, tmp_path / "parts", nothing, never, start_from=origin)
    assert (tmp_path / "parts" / "mesh.glb").read_bytes() == (whole / "mesh.glb").read_bytes()
