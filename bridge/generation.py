"""From the scene to a job, and from a finished job to an object: what the sidebar and the command line share."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple

import bpy
from bpy.types import Context, Object, Scene
from mathutils import Matrix

from ..backend.errors import DreamlatheError, OutputError
from ..backend.reference import ReferenceImage
from ..backend.request import Request
from ..preferences import environment, preferences
from ..properties import settings_of, to_request, uses_pictures
from . import supervisor
from .blender import layer_of, scene_of, undo_push
from .environment import ROOT, worker_command
from .frames import timed
from .history import Past
from .job import Job
from .models import absolute_models
from .pictures import scene_pictures
from .record import Placement, Record, read_record, write_record
from .result import add_result, listed_normals, load_result
from .rig import camera_objects, find_rig, fixed_cameras, rig_matrix
from .worker_client import WorkerClient


class Plan(NamedTuple):
    """A job that is about to start, and where its result belongs. Holds no reference that an undo makes stale."""

    request: Request
    folder: Path
    placement: Placement
    scene_uid: int
    """``session_uid`` of the scene: survives undo and renaming, and never names a scene of another file."""
    python: Path
    redo: bool = False
    """Start over in a folder that holds a job."""
    start_from: Path | None = None
    """Go on from the end of the job in this folder, which had fewer steps."""

    @property
    def matrix(self) -> Matrix:
        """The rig's, when the job was made."""
        return Matrix(self.placement.matrix)


def make_plan(
    context: Context,
    change: Callable[[Request], Request] = lambda request: request,
    folder: Path | None = None,
    python: Path | None = None,
    pictures: Sequence[ReferenceImage] | None = None,
) -> Plan:
    """Read the scene. ``change`` may alter the request before it is validated; ``folder`` is the job's.

    ``pictures`` take the place of the scene's. Raises RequestError and PictureError for settings, cameras and pictures
    that cannot be used, SetupError when the backend's Python is not known.
    """
    scene = scene_of(context)
    settings = settings_of(scene)
    layer_of(context).update()
    matrix = rig_matrix(find_rig(scene, settings.rig))
    objects, cameras = list[Object](), ()
    if settings.camera_source != "ORBIT":
        objects = camera_objects(context, settings.camera_source, settings.camera_collection)
        cameras = fixed_cameras(context, objects, matrix)
    if pictures is None:
        pictures = scene_pictures(context, settings, matrix, objects) if uses_pictures(settings) else ()
    chosen = preferences()
    told = to_request(settings, device=chosen.device, cameras=cameras, references=pictures)
    request = change(absolute_models(told)).validated()
    return Plan(
        request=request,
        folder=folder or new_folder(chosen.results_folder(), request),
        placement=make_placement(scene, matrix),
        scene_uid=scene.session_uid,
        python=python or chosen.find_python(),
    )


def make_placement(scene: Scene, matrix: Matrix) -> Placement:
    """Where a result belongs, by the scene's settings."""
    settings = settings_of(scene)
    return Placement(
        matrix=tuple(tuple(float(number) for number in row) for row in matrix),
        scene=scene.name,
        file=bpy.data.filepath,
        size=settings.real_size if settings.use_real_size else 0.0,
        collection=settings.result_collection.name if settings.result_collection is not None else "",
        asset=settings.mark_asset,
    )


def plan_again(past: Past, scene: Scene, request: Request | None = None, folder: Path | None = None) -> Plan:
    """The plan of a job of the past, to go on with, or with another ``request`` and ``folder``.

    The result goes where the record says; without one, to the rig of ``scene``. SetupError as for :func:`make_plan`.
    """
    noted = read_record(past.folder)
    here = make_placement(scene, rig_matrix(find_rig(scene, settings_of(scene).rig)))
    placement = here if noted is None else noted.placement
    own = next((each for each in bpy.data.scenes if _is_home(each, placement)), scene)
    return Plan(
        request=request or past.request,
        folder=folder or past.folder,
        placement=_belonging(placement, own),
        scene_uid=own.session_uid,
        python=preferences().find_python(),
        start_from=None if noted is None or not noted.start_from or folder else Path(noted.start_from),
    )


def follow_file(plan: Plan) -> Plan:
    """The plan after a file was saved, perhaps under another name, or loaded: the same if its scene is not open."""
    scene = find_scene(plan)
    if scene is None:
        return plan
    return plan._replace(placement=_belonging(plan.placement, scene), scene_uid=scene.session_uid)


def find_scene(plan: Plan) -> Scene | None:
    """The open scene that a job was made for; the one of its name, if its file was loaded again meanwhile."""
    scenes = bpy.data.scenes
    found = next((scene for scene in scenes if scene.session_uid == plan.scene_uid), None)
    return found or next((scene for scene in scenes if _is_home(scene, plan.placement)), None)


def _belonging(placement: Placement, scene: Scene) -> Placement:
    """The same placement in a scene of the open file."""
    return placement._replace(scene=scene.name, file=bpy.data.filepath)


def new_folder(root: Path, request: Request) -> Path:
    """A folder for the job that no other job has."""
    name = folder_name(request)
    return next(each for n in range(1, 10_000) if not (each := root / (name if n == 1 else f"{name}-{n}")).exists())


def folder_name(request: Request) -> str:
    """A name for a job's folder that sorts by time and says what is in it."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{slug(request.title)}-{request.seed}"


def slug(title: str) -> str:
    """A request's title as part of a file name."""
    return re.sub(r"[^\w]+", "-", title.lower()).strip("-")[:40].strip("-") or "untitled"


@timed("start of a worker")
def start_job(plan: Plan) -> Job:
    """Start a worker on it; raises SetupError if that does not start."""
    worker = WorkerClient(worker_command(plan.python), ROOT, environment())
    job = Job(plan.request, plan.folder, worker, redo=plan.redo, start_from=plan.start_from)
    supervisor.watch(job)
    return job


def place_result(plan: Plan, job: Job) -> Object:
    """Import the result of a finished job into the scene it was made for, as one undo step.

    Raises OutputError when the result cannot be read, or when that scene is not open any more.
    """
    with contextlib.suppress(OSError):  # a later import then takes the scene's rig
        write_record(job.folder, Record(plan.request, plan.placement))
    placing = Placing(plan, job.folder)
    while placing.step():
        pass
    if placing.error is not None:
        raise placing.error
    assert placing.result is not None
    return placing.result


class Placing:
    """Places a result little by little, so that no step takes long; between them nothing of Blender's is held."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.error: DreamlatheError | None = None
        self.result: Object | None = None
        self._plan = plan
        self._folder = folder
        self._steps = self._work()

    def step(self) -> bool:
        """Do a little; False once done, and then ``result`` or ``error`` is there."""
        try:
            next(self._steps)
        except StopIteration:
            return False
        except DreamlatheError as error:
            self.error = error
            return False
        return True

    def kill(self) -> None:
        """Leave it."""
        self._steps.close()

    def _work(self) -> Generator[None]:
        self._scene()
        yield
        loaded = load_result(self._folder)
        yield
        normals = listed_normals(loaded.data)
        yield
        scene = self._scene()
        self.result = timed("result into Blender")(add_result)(loaded, scene, self._plan.placement, normals)
        timed("undo step")(undo_push)(f"Generate: {self._plan.request.title}")

    def _scene(self) -> Scene:
        found = find_scene(self._plan)
        if found is None:
            raise OutputError("The scene of this job is not open any more.", "Import the result from its folder.")
        return found


def _is_home(scene: Scene, placement: Placement) -> bool:
    """The scene is the one of that name in that file."""
    return bool(placement.file) and bpy.data.filepath == placement.file and scene.name == placement.scene
