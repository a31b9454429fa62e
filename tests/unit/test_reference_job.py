"""Jobs from pictures: the folder keeps them, a stopped job needs no originals, bad pictures leave nothing behind."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backend import cli
from backend.cameras import orbit_cameras
from backend.errors import Cancelled, ModelError, OutputError, RequestError
from backend.events import Event, Message, Phase, Preview, Progress
from backend.job import run_job
from backend.meshing import read_mesh, render_mesh
from backend.reference import ReferenceImage, resolved
from backend.request import Request
from tests.unit.picture_jobs import SMALL, SMALL_OPTIONS, disc, never, nothing, stop_after
from tests.unit.reference_world import write_picture

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("threads_kept")


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_job_keeps_its_pictures_and_what_is_seen_of_them(picture: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    y = np.linspace(1, 2, 48, dtype=np.float32)[:, None].repeat(48, axis=1)
    np.save(tmp_path / "depth.npy", y)
    request = SMALL.replace(references=(ReferenceImage(str(picture), 20.0, depth=str(tmp_path / "depth.npy")),))
    folder = run_job(request, tmp_path / "job", events.append, never)
    kept = {name for name in files_of(folder) if name.startswith("references/")}
    assert kept == {"references/1.png", "references/1-depth.npy", "references/1-seen.png"}
    assert (folder / "references" / "1.png").read_bytes() == picture.read_bytes()
    seen = np.asarray(Image.open(folder / "references" / "1-seen.png"))
    assert seen.shape[1] == 2 * seen.shape[0]  # the picture and its depth
    previews = [event for event in events if isinstance(event, Preview)]
    assert (Path(previews[0].path).name, previews[0].step) == ("1-seen.png", 0)
    order = [event.name for event in events if isinstance(event, Phase)]
    assert list(dict.fromkeys(order)) == ["environment", "optimize", "mesh", "bake", "done"]
    assert any("by its transparency" in event.text for event in events if isinstance(event, Message))
    written = Request.from_json((folder / "request.json").read_text())
    assert written.references[0].file == "references/1.png"
    assert written.references[0].name == "disc.png"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["request"] == written.digest()
    assert set(metrics["optimize"]["references"][0]) == {"psnr", "mask_iou"}
    assert "info: disc.png" in (folder / "log.txt").read_text()


def test_a_stopped_job_goes_on_without_the_originals(picture: Path, tmp_path: Path) -> None:
    request = SMALL.replace(references=(ReferenceImage(str(picture)),))
    whole = run_job(request, tmp_path / "whole", nothing, never)
    with pytest.raises(Cancelled):
        run_job(request, tmp_path / "parts", *stop_after(7))
    picture.unlink()
    assert cli.main(["generate", "--resume", "--out", str(tmp_path / "parts")]) == 0
    assert (tmp_path / "parts" / "mesh.glb").read_bytes() == (whole / "mesh.glb").read_bytes()
    assert files_of(tmp_path / "parts") == files_of(whole)
    moved = (tmp_path / "parts").rename(tmp_path / "elsewhere")
    assert cli.main(["generate", "--resume", "--out", str(moved)]) == 0  # finished, wherever it lies


def test_a_changed_picture_is_noticed(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = SMALL.replace(references=(ReferenceImage(str(picture)),))
    folder = tmp_path / "job"
    with pytest.raises(Cancelled):
        run_job(request, folder, *stop_after(7))
    write_picture(picture, disc(radius=0.5))
    with pytest.raises(OutputError, match="another request"):
        run_job(request, folder, nothing, never)
    write_picture(folder / "references" / "1.png", disc(radius=0.5))
    assert cli.main(["generate", "--resume", "--out", str(folder)]) == 2
    assert "is not the picture that the job began with" in capsys.readouterr().err
    run_job(request, folder, nothing, never, redo=True)
    assert (folder / "references" / "1.png").read_bytes() == picture.read_bytes()


def test_a_finished_job_is_known_by_its_pictures_content(picture: Path, tmp_path: Path) -> None:
    def request_of(path: Path) -> Request:
        return SMALL.replace(references=(ReferenceImage(str(path)),))

    folder = run_job(request_of(picture), tmp_path / "job", nothing, never)
    events: list[Event] = []
    run_job(request_of(picture.rename(tmp_path / "other name.png")), folder, events.append, never)
    assert [event.name for event in events if isinstance(event, Phase)] == ["done"]


def test_redo_from_the_folders_own_pictures(picture: Path, tmp_path: Path) -> None:
    folder = run_job(SMALL.replace(references=(ReferenceImage(str(picture)),)), tmp_path / "job", nothing, never)
    own = str(folder / "request.json")
    before = (folder / "mesh.glb").read_bytes()
    assert cli.main(["generate", "--request", own, "--redo", "--out", str(folder)]) == 0
    assert (folder / "mesh.glb").read_bytes() == before
    assert cli.main(["generate", "--request", own, "--out", str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy" / "mesh.glb").read_bytes() == before


def test_more_steps_need_no_originals(picture: Path, tmp_path: Path) -> None:
    request = SMALL.replace(references=(ReferenceImage(str(picture)),))
    folder = run_job(request, tmp_path / "job", nothing, never)
    picture.unlink()
    kept = Request.from_json((folder / "request.json").read_text())
    more = dataclasses.replace(kept.optimize, iterations=20)
    longer = kept.replace(optimize=more, references=resolved(kept.references, folder))
    events: list[Event] = []
    run_job(longer, tmp_path / "longer", events.append, never, start_from=folder)
    assert min(event.step for event in events if isinstance(event, Progress) and event.total == 20) > 12
    assert files_of(tmp_path / "longer") == files_of(folder)
    write_picture(tmp_path / "other.png", disc(radius=0.4))
    other = longer.replace(references=(ReferenceImage(str(tmp_path / "other.png")),))
    with pytest.raises(RequestError, match="differs in more"):
        run_job(other, tmp_path / "other", nothing, never, start_from=folder)


def test_models_are_fetched_only_if_they_may_be(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def refuse(model: str, allow_download: bool, *_: object, **__: object) -> None:
        asked.append(allow_download)
        raise ModelError("Not today.", "Come again.")

    monkeypatch.setattr("backend.guidance.model_folder.open_model", refuse)
    plain = SMALL.replace(prompt="a red duck", model="someone/words")
    shown = SMALL.replace(references=(ReferenceImage(str(picture)),), view_model="someone/views")
    for allowed in ("1", ""):
        monkeypatch.setenv("DREAMLATHE_DOWNLOADS", allowed)
        for request in (plain, shown):
            with pytest.raises(ModelError, match="Not today"):
                run_job(request, tmp_path / "job", nothing, never)
    assert asked == [True, True, False, False]


def test_the_command_line_makes_a_mesh_of_pictures(picture: Path, tmp_path: Path, capsys: Any) -> None:
    other = write_picture(tmp_path / "back.png", disc(radius=0.7))
    out = tmp_path / "out"
    images = ("--image", str(picture), "--azimuth", "-30", "--fov", "30", "--image", str(other), "--azimuth", "180")
    assert cli.main(["generate", *images, *SMALL_OPTIONS, "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out / "mesh.glb")
    references = Request.from_json((out / "request.json").read_text()).references
    assert [(each.azimuth, each.field_of_view) for each in references] == [(-30.0, 30.0), (180.0, 40.0)]
    assert cli.main(["inspect", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 2


def test_the_texture_shows_the_picture_where_it_may(picture: Path, tmp_path: Path) -> None:
    """Twelve steps make no picture; the projection does, unless it is turned off, or colours do not count."""
    request = SMALL.replace(references=(ReferenceImage(str(picture)),))

    def blue_and_orange(**changes: float) -> float:
        """How much redder the object's right half is than its left, from the picture's camera."""
        changed = request.replace(reference=dataclasses.replace(request.reference, **changes))
        folder = run_job(changed, tmp_path / "-".join(("job", *changes)), nothing, never)
        seen = render_mesh(read_mesh(folder / "mesh.glb"), orbit_cameras(0, 0, 3, 40), 64, 64, lit=False)[0]
        return float(seen[28:36, 36:44, 0].mean() - seen[28:36, 20:28, 0].mean())

    assert blue_and_orange() > 0.7
    assert blue_and_orange(projection=0.0) < 0.5
    assert blue_and_orange(colour_weight=0.0) < 0.5
