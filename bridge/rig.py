"""From the scene's rig and cameras to the request's, in the rig's space.

A rig is an empty with a marker: its location, rotation and scale say where the ball of radius 1 lies in the scene. The
request's cameras are in the ball's space, and the result is placed by the same matrix: where the cameras saw it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import cast

import bpy
import numpy as np
from bpy.types import Context, Object, Scene
from mathutils import Matrix, Vector

from ..backend.cameras import CameraBatch, orbit_cameras
from ..backend.errors import RequestError
from ..backend.request import FixedCamera, OrbitRig
from .blender import layer_of, scene_of
from .callbacks import CAMERA_PROMPT, RIG_MARKER, is_rig

_SCALE_TOLERANCE = 1e-3


def find_rig(scene: Scene, chosen: Object | None = None) -> Object | None:
    """The chosen rig if it is in the scene, else the scene's first by name, else None."""
    if chosen is not None and cast("Object | None", scene.objects.get(chosen.name)) == chosen:
        return chosen
    rigs = sorted((each for each in scene.objects if is_rig(each)), key=lambda each: each.name)
    return rigs[0] if rigs else None


def add_rig(scene: Scene, matrix: Matrix) -> Object:
    """A new rig: an empty drawn as the ball the object will live in."""
    rig = bpy.data.objects.new("Dreamlathe Rig", None)
    rig.empty_display_type = "SPHERE"
    rig.empty_display_size = 1.0
    rig[RIG_MARKER] = 1
    rig.matrix_world = matrix
    scene.collection.objects.link(rig)
    return rig


def rig_matrix(rig: Object | None) -> Matrix:
    """From the ball's space to the world; without a rig the ball lies at the world's origin."""
    return Matrix.Identity(4) if rig is None else rig.matrix_world.copy()


def fixed_cameras(context: Context, cameras: Iterable[Object], matrix: Matrix) -> tuple[FixedCamera, ...]:
    """The scene's cameras, with their own prompts, in the space of the rig whose matrix is given.

    Raises RequestError for a camera without perspective, a stretched or mirrored rig, and when there are no cameras.
    """
    depsgraph = context.evaluated_depsgraph_get()
    found = tuple(
        dataclasses.replace(
            fixed_camera(each, matrix, scene_of(context), depsgraph), prompt=getattr(each, CAMERA_PROMPT, "")
        )
        for each in cameras
    )
    if not found:
        raise RequestError("There are no cameras to look from.", "Add some, choose other ones, or use the orbit.")
    return found


def fixed_camera(camera: Object, matrix: Matrix, scene: Scene, depsgraph: bpy.types.Depsgraph) -> FixedCamera:
    """One camera in the rig's space. The picture is the smallest square that holds the camera's frame."""
    data = camera.data
    assert isinstance(data, bpy.types.Camera)
    if data.type != "PERSP":
        raise RequestError(f"The camera {camera.name} has no perspective.", "Set its type to Perspective.")
    render = scene.render
    width, height = render.resolution_x * render.pixel_aspect_x, render.resolution_y * render.pixel_aspect_y
    # Not angle_y: that one ignores the render's aspect, the sensor fit and the shift.
    projection = camera.evaluated_get(depsgraph).calc_matrix_camera(
        depsgraph,
        x=render.resolution_x,
        y=render.resolution_y,
        scale_x=render.pixel_aspect_x,
        scale_y=render.pixel_aspect_y,
    )
    across, upward = width / max(width, height), height / max(width, height)
    return FixedCamera(
        camera_to_world=_pose(camera.evaluated_get(depsgraph).matrix_world, matrix, camera.name),
        focal=(projection[0][0] * across, projection[1][1] * upward),
        center=(-projection[0][2] * across, -projection[1][2] * upward),
        name=camera.name,
    )


def is_even(rig: Matrix) -> bool:
    """Whether the rig's scale is positive and the same along all axes."""
    _, _, scale = rig.decompose()
    size = (scale.x + scale.y + scale.z) / 3.0
    return size > 0.0 and (scale - Vector((size, size, size))).length <= _SCALE_TOLERANCE * size


def _pose(camera: Matrix, rig: Matrix, name: str) -> tuple[tuple[float, float, float, float], ...]:
    """The camera's rotation and translation in the rig's space, its own scale left out."""
    rig_place, rig_turn, rig_scale = rig.decompose()
    size = (rig_scale.x + rig_scale.y + rig_scale.z) / 3.0
    if not is_even(rig):
        raise RequestError(
            "The rig is stretched or mirrored, so cameras cannot be seen from it.",
            "Give it the same positive scale along X, Y and Z, or use the orbit.",
        )
    place, turn, _ = camera.decompose()
    back = rig_turn.inverted()
    position = (back @ (place - rig_place)) / size
    rotation = (back @ turn).normalized().to_matrix()
    if position.length <= 1.0:
        raise RequestError(f"The camera {name} stands inside the rig's ball.", "Move it out, or scale the rig down.")
    rows = [(rotation[i][0], rotation[i][1], rotation[i][2], position[i]) for i in range(3)]
    return (*rows, (0.0, 0.0, 0.0, 1.0))


def camera_objects(context: Context, source: str, collection: bpy.types.Collection | None) -> list[Object]:
    """The cameras of a source: SCENE, SELECTED or COLLECTION; sorted by name, so that order decides nothing."""
    if source == "SELECTED":
        candidates: list[Object] = list(layer_of(context).objects.selected)
    elif source == "COLLECTION":
        candidates = list(collection.all_objects) if collection is not None else []
    else:
        candidates = list(scene_of(context).objects)
    return sorted((each for each in candidates if each.type == "CAMERA"), key=lambda each: each.name)


def add_cameras(scene: Scene, orbit: OrbitRig, matrix: Matrix, count: int) -> bpy.types.Collection:
    """``count`` real cameras evenly around the orbit, at the middle of its ranges, in a collection of their own."""
    low, high = orbit.azimuth
    full = high - low >= 360.0
    azimuth = np.linspace(low, high, count, endpoint=not full) if count > 1 or full else np.array([(low + high) / 2])
    field_of_view = _middle(orbit.field_of_view)
    poses = orbit_cameras(azimuth, _middle(orbit.elevation), _middle(orbit.distance), field_of_view)
    collection = bpy.data.collections.new("Dreamlathe Cameras")
    scene.collection.children.link(collection)
    for index, world in enumerate(_world_matrices(poses, matrix)):
        data = bpy.data.cameras.new(f"Orbit {index + 1}")
        data.sensor_fit = "AUTO"
        data.angle = math.radians(field_of_view)
        camera = bpy.data.objects.new(data.name, data)
        camera.matrix_world = world
        collection.objects.link(camera)
    return collection


def _world_matrices(poses: CameraBatch, rig: Matrix) -> list[Matrix]:
    """Poses in the ball's space as matrices of the world, without the rig's scale."""
    _, turn, _ = rig.decompose()
    matrices: list[Matrix] = []
    for pose in poses.camera_to_world.tolist():
        local = Matrix(pose)
        rotation = turn.to_matrix() @ local.to_3x3()
        matrices.append(Matrix.Translation(rig @ local.translation) @ rotation.to_4x4())
    return matrices


def _middle(bounds: tuple[float, float]) -> float:
    return (bounds[0] + bounds[1]) / 2.0
