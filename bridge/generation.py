"""From the scene to a job, and from a finished job to an object: what the sidebar and the command line share."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bpy
from bpy.types import Context, Object, Scene
from mathutils import Matrix

from ..backend.errors import DreamlatheError, OutputError
from ..backend.request import Request
from ..preferences import environment, preferences
from ..properties import settings_of, to_request
from . import supervisor
from .blender import layer_of, scene_of, undo_push
from .environment import ROOT, worker_command
from .job import Job
from .result import import_result, write_placement
from .rig import camera_objects, find_rig, fixed_cameras, rig_matrix
from .worker_client import WorkerClient


@dataclass(frozen=True)
class Plan:
    """A job that is about to start, and where its result belongs. Holds no reference that an undo makes stale."""

    request: Request
    folder: Path
    matrix: Matrix
    """The rig's, at the start."""
    scene_uid: int
    """``session_uid`` of the scene: survives undo and renaming, and never names a scene of another file."""
    python: Path
    redo: bool = False
    """Start over in a folder that holds a job."""


def make_plan(
    context: Context,
    change: Callable[[Request], Request] = lambda request: request,
    folder: Path | None = None,
    python: Path | None = None,
) -> Plan:
    """Read the scene. ``change`` may alter the request before it is validated; ``folder`` is the job's.

    Raises RequestError for settings and cameras that cannot be used, SetupError when the backend's Python is not known.
    """
    scene = scene_of(context)
    settings = settings_of(scene)
    layer_of(context).update()
    matrix = rig_matrix(find_rig(scene, settings.rig))
    cameras = ()
    if settings.camera_source != "ORBIT":
        objects = camera_objects(context, settings.camera_source, settings.camera_collection)
        cameras = fixed_cameras(context, objects, matrix)
    chosen = preferences()
    request = change(to_request(settings, device=chosen.device, cameras=cameras)).validated()
    return Plan(
        request=request,
        folder=folder or chosen.results_folder() / folder_name(request),
        matrix=matrix,
        scene_uid=scene.session_uid,
        python=python or chosen.find_python(),
    )


def folder_name(request: Request) -> str:
    """A name for a job's folder that sorts by time and says what is in it."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{slug(request.title)}-{request.seed}"


def slug(title: str) -> str:
    """A request's title as part of a file name."""
    return re.sub(r"[^\w]+", "-", title.lower()).strip("-")[:40].strip("-") or "untitled"


def start_job(plan: Plan) -> Job:
    """Start a worker on it; raises SetupError if that does not start."""
    worker = WorkerClient(worker_command(plan.python), ROOT, environment())
    job = Job(plan.request, plan.folder, worker, redo=plan.redo)
    supervisor.watch(job)
    return job


def place_result(plan: Plan, job: Job) -> Object:
    """Import the result of a finished job into the scene it was made for, as one undo step.

    Raises OutputError when the result cannot be read, or when that scene is not open any more.
    """
    scene = _scene(plan.scene_uid)
    with contextlib.suppress(OSError):  # a later import then takes the scene's rig
        write_placement(job.folder, plan.matrix)
    if scene is None:
        raise OutputError("The scene of this job is not open any more.", "Import the result from its folder.")
    result = import_result(job.folder, scene, plan.matrix)
    undo_push(f"Generate: {plan.request.title}")
    return result


def start_in_background(plan: Plan) -> Job:
    """Start the job and let the supervisor's timer finish it."""
    job = start_job(plan)

    def done() -> None:
        if job.status.state != "finished":
            return
        try:
            place_result(plan, job)
        except DreamlatheError as error:
            job.fail(error)

    supervisor.start(job, done)
    return job


def _scene(uid: int) -> Scene | None:
    return next((scene for scene in bpy.data.scenes if scene.session_uid == uid), None)
