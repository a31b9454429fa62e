"""``blender [file.blend] --command dreamlathe generate …``: the whole way without a window, with real exit codes."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy

from ..backend.errors import Cancelled, DreamlatheError, OutputError
from ..backend.events import Failed
from ..backend.picture_options import add_picture_options, pictures_of
from ..backend.recipes import RECIPES
from ..backend.reference import ReferenceImage
from ..backend.request import Request, preset
from ..backend.settings import replace_path
from ..preferences import environment, preferences
from ..properties import Settings, from_request, orbit_of, settings_of, to_request
from .blender import absolute, layer_of, scene_of
from .command import COMMAND
from .environment import Probe, find_python
from .environment import run as run_probe
from .generation import make_plan, place_result, slug, start_job
from .job import Job, Status, duration, run
from .pictures import background_picture, camera_named, list_pictures
from .rig import find_rig, rig_matrix

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
_REPAIRABLE = {"request", "vocabulary", "model", "picture", "output"}
"""Codes of errors that come from what was asked; the same as those of the backend's own command line."""
_SOURCES = {"orbit": "ORBIT", "scene": "SCENE", "selected": "SELECTED"}


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code: 0 done, 1 failed, 2 asked wrongly, 130 cancelled."""
    try:
        options = _parser().parse_args(list(arguments))
    except SystemExit as stop:  # argparse has said what is wrong
        return DONE if stop.code in (None, 0) else USAGE
    try:
        return int(options.run(options))
    except DreamlatheError as error:
        return _fail(Failed(error.code, error.message, error.hint))


def generate(options: argparse.Namespace) -> int:
    """Read the scene and the pictures, run the job, import the result, save the .blend."""
    python = find_python(options.python) if options.python else preferences().find_python()
    _open_scene(options.open)
    _apply(options)
    settings = settings_of(scene_of(bpy.context))
    pictures = _pictures(options)
    _choose_source(settings, pictures, worded=options.prompt is not None)
    plan = make_plan(
        bpy.context, lambda request: _overridden(request, options), python=python, pictures=pictures or None
    )
    folder = absolute(options.out or f"out/{slug(plan.request.title)}-{plan.request.seed}")
    plan = plan._replace(folder=folder, redo=options.redo)
    blend = absolute(options.blend) if options.blend else folder / "scene.blend"
    _check_blend(blend)
    job = start_job(plan)
    status = _run(job, quiet=options.quiet)
    if status.state != "finished":
        return _fail(status.error or Failed("error", "The job failed."))
    result = place_result(plan, job)
    _save(blend)
    _say(f"Done in {duration(status.seconds)}: {result.name} is in {blend}")
    return DONE


def check(options: argparse.Namespace) -> int:
    """Test the backend's Python."""
    python = find_python(options.python) if options.python else preferences().find_python()
    _say(f"{python}: {run_probe(Probe(python, environment())).text}")
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description="From a sentence or pictures to a textured mesh.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    make = verbs.add_parser("generate", help="make a mesh and save it in a .blend, next to its .glb and turntable")
    make.set_defaults(run=generate)
    make.add_argument("--prompt", help="what to make (default: the scene's)")
    make.add_argument("--negative-prompt", help="what to stay away from (default: the scene's)")
    make.add_argument("--seed", type=int, help="0 to 2147483647 (default: the scene's)")
    make.add_argument("--preset", choices=("draft", "standard", "high"), help="(default: the scene's settings)")
    make.add_argument("--recipe", choices=tuple(RECIPES), help="settings for a way to ask; --set changes them")
    make.add_argument("--model", help="toybox, a diffusers folder, or a Hub id (default: the scene's)")
    make.add_argument("--view-model", help="for pictures: toybox-views, a Zero-1-to-3 folder, or none")
    make.add_argument("--device", help="auto, cpu, cuda, cuda:1, mps (default: the preferences')")
    make.add_argument("--cameras", choices=tuple(_SOURCES), help="where to look from (default: the scene's choice)")
    make.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="such as mesh.faces=5000")
    make.add_argument("--open", metavar="FILE", help="open this .blend first; its rig and settings are used")
    make.add_argument("--out", metavar="DIR", help="the job's folder (default: out/<prompt>-<seed>)")
    make.add_argument("--blend", metavar="FILE", help="what to save (default: scene.blend in the job's folder)")
    make.add_argument("--redo", action="store_true", help="start over in a folder that holds a job")
    make.add_argument("--quiet", action="store_true", help="print the end alone")
    add_picture_options(make)
    make.add_argument(
        "--from-camera",
        action="append",
        nargs="?",
        const="",
        default=[],
        metavar="NAME",
        help="the picture in a camera's background, seen from that camera (default: the scene's); may be given again",
    )
    test = verbs.add_parser("check", help="test the backend's Python")
    test.set_defaults(run=check)
    for verb in (make, test):
        verb.add_argument("--python", metavar="FILE", help="the backend's Python (default: the preferences')")
    return parser


def _open_scene(path: str | None) -> None:
    """Open the named file; without one, and without a file or a rig in the scene, begin with an empty scene."""
    if path:
        try:
            bpy.ops.wm.open_mainfile(filepath=str(absolute(path)))
        except RuntimeError:
            raise OutputError(f"{path} cannot be opened.", "Name a .blend file that exists.") from None
    elif not bpy.data.filepath and find_rig(scene_of(bpy.context)) is None:
        bpy.ops.wm.read_homefile(use_empty=True)


def _apply(options: argparse.Namespace) -> None:
    """Write the options that the scene's settings hold into them, so that the saved file tells how it was made."""
    settings = settings_of(scene_of(bpy.context))
    source, request = settings.source, to_request(settings).replace(prompt=settings.prompt)
    given = {name: getattr(options, name) for name in ("prompt", "negative_prompt", "seed", "model", "view_model")}
    request = request.replace(**{name: value for name, value in given.items() if value is not None})
    if options.preset:
        start = preset(options.preset)
        request = request.replace(preset=start.preset, optimize=start.optimize, refine=start.refine, mesh=start.mesh)
    request = request.with_assignments(RECIPES.get(options.recipe, ()))
    request = _overridden(request, options).replace(device="auto")
    request.replace(prompt=request.prompt or "a").validated()  # the scene's own prompt is checked with the plan
    from_request(settings, request)
    settings.source = source
    if options.cameras:
        settings.camera_source = _SOURCES[options.cameras]  # pyright: ignore[reportAttributeAccessIssue]


def _pictures(options: argparse.Namespace) -> tuple[ReferenceImage, ...]:
    """The pictures of --image, as far away as the orbit where nothing is said of it, and those behind cameras."""
    scene = scene_of(bpy.context)
    settings = settings_of(scene)
    orbit = orbit_of(settings)
    away = {"distance": sum(orbit.distance) / 2, "field_of_view": sum(orbit.field_of_view) / 2}
    files = tuple(
        dataclasses.replace(each, **{field: str(absolute(path)) for field, path in each.files.items()})
        for each in pictures_of(options, **away)
    )
    if not options.from_camera:
        return files
    layer_of(bpy.context).update()
    matrix = rig_matrix(find_rig(scene, settings.rig))
    cameras = [camera_named(bpy.context, name) for name in options.from_camera]
    return (*files, *(background_picture(bpy.context, each, matrix) for each in cameras))


def _choose_source(settings: Settings, pictures: tuple[ReferenceImage, ...], *, worded: bool) -> None:
    """What the options name takes the place of the scene's pictures, and is the source beside a prompt, if any."""
    if pictures:
        settings.source = "BOTH" if settings.prompt.strip() else "PICTURE"
        list_pictures(scene_of(bpy.context), settings, pictures)
    elif worded and settings.source == "PICTURE":
        settings.source = "BOTH"


def _overridden(request: Request, options: argparse.Namespace) -> Request:
    """The request with --device and every --set."""
    if options.device:
        request = request.replace(device=options.device)
    for entry in options.set:
        path, equals, text = str(entry).partition("=")
        if not equals:
            raise OutputError(f"--set {entry} has no value.", "Write --set mesh.faces=5000.")
        request = replace_path(request, path.strip(), text)
    return request


def _run(job: Job, *, quiet: bool) -> Status:
    """Run the job to its end; Ctrl-C and SIGTERM cancel it, a second one kills it."""
    printer = _Printer(quiet=quiet)
    with _interrupts(job):
        return run(job, printer.show)


@contextmanager
def _interrupts(job: Job) -> Generator[None]:
    def cancel(_number: int, _frame: Any) -> None:
        job.cancel()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, cancel) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class _Printer:
    """Progress as lines: each phase, each warning, and of a phase's steps about every tenth."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._shown = ("", -1)
        self._warnings = 0

    def show(self, status: Status) -> None:
        """Print what is new."""
        for warning in status.warnings[self._warnings :]:
            _say(f"Warning: {warning}")
        self._warnings = len(status.warnings)
        now = (status.phase, int(status.factor * 10))
        if not self._quiet and status.active and now != self._shown:
            self._shown = now
            _say(f"{status.phase}: {status.message}" if status.total <= 0 and status.message else status.text)


def _check_blend(path: Path) -> None:
    """Say before the work, not after it, that the .blend cannot be saved there."""
    if path.is_dir() or path.suffix != ".blend":
        raise OutputError(f"{path} is no name for a .blend file.", "End it with .blend.")
    nearest = next(folder for folder in path.parents if folder.exists())
    if not nearest.is_dir() or not os.access(path if path.exists() else nearest, os.W_OK):
        raise OutputError(f"{path} cannot be written.", "Choose another place with --blend.")


def _save(path: Path) -> None:
    """Save the file; an OutputError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        bpy.ops.wm.save_as_mainfile(filepath=str(path), check_existing=False, compress=True)
    except (OSError, RuntimeError):
        raise OutputError(f"{path} cannot be written.", "Choose another place with --blend.") from None


def _say(text: str) -> None:
    sys.stdout.write(f"{COMMAND}: {text}\n")
    sys.stdout.flush()


def _fail(error: Failed) -> int:
    """Print one line, and return the exit code."""
    sys.stdout.flush()
    sys.stderr.write(f"{COMMAND}: {error.message} {error.hint}".rstrip() + "\n")
    sys.stderr.flush()
    return {Cancelled.code: INTERRUPTED}.get(error.code, USAGE if error.code in _REPAIRABLE else FAILED)
