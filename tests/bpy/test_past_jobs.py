"""The list of past jobs: what it shows, and every operator on the one that is chosen."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bpy.blender import Matrix, bpy
from tests.bpy.glb_fixture import write_result


@pytest.fixture
def jobs(extension: Any, backend_python: Path) -> Any:
    return extension("bridge.job_list")


@pytest.fixture
def make(extension: Any, tmp_path: Path, jobs: Any) -> Callable[..., Path]:
    """Makes a finished job's folder with its record."""

    def run(name: str, prompt: str = "a red duck", seed: int = 7, **placement: Any) -> Path:
        folder = tmp_path / "jobs" / name
        request = extension("backend.request").Request(prompt=prompt, seed=seed)
        write_result(folder, json.loads(request.to_json()))
        record = extension("bridge.record")
        created = 1e9 + len(list((tmp_path / "jobs").iterdir()))
        record.write_record(folder, record.Record(request, record.Placement(**placement), created))
        jobs.refresh()
        jobs.choose(folder)
        return folder

    return run


def finish(extension: Any) -> None:
    """Play the timer until all is done."""
    deadline = time.monotonic() + 20
    while extension("bridge.queue").busy():
        assert time.monotonic() < deadline
        extension("bridge.supervisor")._tick()
        time.sleep(0.01)


def test_the_newest_stands_first_and_the_chosen_stays_chosen(jobs: Any, make: Any) -> None:
    old = make("one")
    assert jobs.active().folder == old
    new = make("two", prompt="a blue car")
    assert [item.name for item in jobs.items()] == ["a blue car", "a red duck"]
    jobs.choose(old)
    jobs.refresh()
    assert jobs.active().folder == old
    assert jobs.past_of(jobs.items()[0]).folder == new
    assert (jobs.active().state, jobs.active().seconds) == ("finished", 1.5)


def test_the_list_is_read_when_a_file_is_loaded_and_never_saved(jobs: Any, make: Any, tmp_path: Path) -> None:
    make("one")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    assert bpy.ops.dreamlathe.job_remove() == {"FINISHED"}
    assert len(jobs.items()) == 0
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    assert len(jobs.items()) == 0


def test_import_again(make: Any) -> None:
    matrix = Matrix.Translation((5, 0, 0))
    make("one", matrix=tuple(map(tuple, matrix)))
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.object.mode_set(mode="EDIT")
    assert bpy.ops.dreamlathe.job_import() == {"FINISHED"}
    result = bpy.data.objects["a red duck"]
    assert (bpy.context.mode, bpy.context.view_layer.objects.active) == ("OBJECT", result)
    assert np.allclose(result.matrix_world.translation, (5, -0.2, -0.4))


def test_recall_settings(make: Any, settings: Any) -> None:
    make("one", prompt="a blue car", seed=11)
    assert bpy.ops.dreamlathe.job_recall() == {"FINISHED"}
    assert (settings.prompt, settings.seed) == ("a blue car", 11)


def test_a_new_seed(extension: Any, make: Any, tmp_path: Path) -> None:
    make("one")
    assert bpy.ops.dreamlathe.job_vary() == {"FINISHED"}
    ticket = extension("bridge.queue").current()
    assert ticket.plan.request.prompt == "a red duck"
    assert ticket.plan.request.seed != 7
    finish(extension)
    assert len(list((tmp_path / "jobs").iterdir())) == 2


def test_more_steps(extension: Any, make: Any, jobs: Any) -> None:
    folder = make("one")
    assert not bpy.ops.dreamlathe.job_continue.poll()  # there is no checkpoint
    (folder / "checkpoint.safetensors").touch()
    assert bpy.ops.dreamlathe.job_continue(steps=500) == {"FINISHED"}
    ticket = extension("bridge.queue").current()
    before = jobs.past_of(next(item for item in jobs.items() if Path(item.folder) == folder)).request
    assert ticket.plan.request == before.replace(
        optimize=dataclasses.replace(before.optimize, iterations=before.optimize.iterations + 500)
    )
    assert ticket.plan.start_from == folder
    assert json.loads((ticket.plan.folder / "job.json").read_text())["start_from"] == str(folder)
    finish(extension)
    assert json.loads((ticket.plan.folder / "command.json").read_text())["start_from"] == str(folder)


def test_remove_deletes_what_the_job_wrote_and_nothing_else(make: Any, jobs: Any) -> None:
    folder = make("one")
    (folder / "my.blend").touch()
    assert bpy.ops.dreamlathe.job_remove() == {"FINISHED"}
    assert [path.name for path in folder.iterdir()] == ["my.blend"]
    assert len(jobs.items()) == 0
    assert not bpy.ops.dreamlathe.job_remove.poll()
    folder = make("two")
    assert bpy.ops.dreamlathe.job_remove() == {"FINISHED"}
    assert not folder.exists()


def test_a_job_from_pictures(extension: Any, make: Any, jobs: Any, settings: Any) -> None:
    """It is called by its first picture; what is made of it again takes the job's own copies."""
    folder = make("one")
    reference = extension("backend.reference").ReferenceImage("/gone/owl.png")
    given = extension("backend.request").Request(prompt="", references=(reference,))
    record = extension("bridge.record")
    record.write_record(folder, record.Record(given))
    kept = dataclasses.replace(reference, file="references/1.png", name="owl.png")
    (folder / "request.json").write_text(given.replace(references=(kept,)).to_json())
    (folder / "references").mkdir()
    (folder / "references" / "1.png").touch()
    jobs.refresh()
    assert [item.name for item in jobs.items()] == ["owl"]
    assert "owl" not in extension("bridge.suggestions").suggest_prompts(settings, None, "")
    assert bpy.ops.dreamlathe.job_vary() == {"FINISHED"}
    plan = extension("bridge.queue").current().plan
    assert [each.file for each in plan.request.references] == [str(folder / "references" / "1.png")]
    assert "-owl-" in plan.folder.name
    finish(extension)
    assert "owl" in bpy.data.objects
    jobs.choose(folder)
    assert bpy.ops.dreamlathe.job_remove() == {"FINISHED"}
    assert not folder.exists()


def test_a_job_at_work_cannot_be_removed(extension: Any, jobs: Any, settings: Any) -> None:
    settings.prompt = "a duck that takes long"
    ticket = extension("bridge.queue").add(extension("bridge.generation").make_plan(bpy.context))
    jobs.refresh()
    jobs.choose(ticket.plan.folder)
    assert not bpy.ops.dreamlathe.job_remove.poll()


def test_open_the_folder(make: Any, monkeypatch: pytest.MonkeyPatch, extension: Any) -> None:
    folder = make("one")
    opened: list[str] = []

    class Opener:
        @staticmethod
        def path_open(filepath: str) -> None:
            opened.append(filepath)

    fake: Any = type("bpy", (), {"ops": type("ops", (), {"wm": Opener})})
    monkeypatch.setattr(extension("operators.results"), "bpy", fake)
    assert bpy.ops.dreamlathe.job_open() == {"FINISHED"}
    assert opened == [str(folder)]


def test_refresh_finds_what_others_made(make: Any, jobs: Any, extension: Any, tmp_path: Path) -> None:
    """A folder of the command line has no record."""
    make("one")
    request = extension("backend.request").Request(prompt="a green car")
    write_result(tmp_path / "jobs" / "other", json.loads(request.to_json()))
    (tmp_path / "jobs" / "no job").mkdir()
    (tmp_path / "jobs" / "a file").touch()
    assert bpy.ops.dreamlathe.jobs_refresh() == {"FINISHED"}
    assert [item.name for item in jobs.items()] == ["a green car", "a red duck"]


def test_a_folder_that_has_not_changed_is_read_once(make: Any, extension: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make("one")
    history = extension("bridge.history")
    read: list[Path] = []
    real = history._read

    def counted(*arguments: Any) -> Any:
        read.append(arguments[0])
        return real(*arguments)

    monkeypatch.setattr(history, "_read", counted)
    history.scan(folder.parent)
    assert read == []
    time.sleep(0.01)
    (folder / "thumbnail.png").touch()
    assert history.scan(folder.parent)[0].picture == folder / "thumbnail.png"
    assert read == [folder]


def test_prompts_are_suggested(make: Any, extension: Any, settings: Any) -> None:
    make("one")
    make("two", prompt="a blue car")
    suggest = extension("bridge.suggestions").suggest_prompts
    assert suggest(settings, None, "")[:2] == ["a blue car", "a red duck"]
    assert suggest(settings, None, "duck")[0] == "a red duck"
    assert "a tall rob".replace("rob", "robot") in suggest(settings, None, "a tall rob")
    settings.model = "someone/else"
    assert suggest(settings, None, "a tall rob") == []
    assert "toybox" in extension("bridge.suggestions").suggest_models(settings, None, "")
