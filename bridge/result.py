"""From a job's folder to an object in the scene. Data only, no operators: works in every mode and without a window."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple, cast

import bpy
import numpy as np
from bpy.types import Collection, Context, Object, Scene
from mathutils import Matrix
from numpy.typing import NDArray

from ..backend.errors import OutputError
from ..backend.request import Request
from .asset import mark_asset
from .blender import layer_of, scene_of, version
from .glb import MeshData, read_glb
from .material import build_material
from .record import Placement

COLLECTION = "Dreamlathe"


class Normals(NamedTuple):
    """Normals in lists."""

    values: list[list[float]]
    per_vertex: bool
    """One for each vertex, because a place has but one: a sixth of the work. Otherwise one for each corner."""


class Loaded(NamedTuple):
    """A result, read and not yet in Blender."""

    folder: Path
    request: Request
    data: MeshData


def load_result(folder: Path) -> Loaded:
    """Read the mesh of a finished job; raises OutputError if the folder holds none. Touches nothing of Blender's."""
    request = read_request(folder)
    return Loaded(folder, request, read_glb(folder / "mesh.glb"))


def listed_normals(data: MeshData) -> Normals | None:
    """The normals as Blender wants them, which takes a moment."""
    corners = data.corner_normals
    if corners is None:
        return None
    places = np.zeros_like(data.vertices)
    places[data.faces.ravel()] = corners.reshape(-1, 3)
    smooth = bool(np.allclose(places[data.faces], corners, atol=2e-3))
    return Normals((places if smooth else corners.reshape(-1, 3)).tolist(), per_vertex=smooth)


def import_result(folder: Path, scene: Scene, placement: Placement) -> Object:
    """Add the mesh of a finished job to the scene and return its object.

    The object stands where ``placement`` says, with its origin at its base, in a collection of its own, with one
    material and a packed texture. Its custom properties hold the request, the seed, the versions and the metrics.
    Raises OutputError if the folder holds no finished job, and then nothing was added.
    """
    loaded = load_result(folder)
    return add_result(loaded, scene, placement, listed_normals(loaded.data))


def add_result(loaded: Loaded, scene: Scene, placement: Placement, normals: Normals | None) -> Object:
    """The same for a result that was read already."""
    data, name = loaded.data, loaded.request.title
    base = base_of(data)
    mesh = build_mesh(name, data._replace(vertices=data.vertices - base), normals)
    mesh.materials.append(build_material(name, data.image, data.roughness, data.metallic))
    result = bpy.data.objects.new(name, mesh)
    result.matrix_world = stand(data, base, placement)
    _describe(result, loaded.request, loaded.folder)
    _own_collection(scene, f"{name} {loaded.request.seed}", placement.collection).objects.link(result)
    select_only(scene, result)
    if placement.asset:
        mark_asset(result, loaded.request, loaded.folder / "thumbnail.png")
    return result


def base_of(data: MeshData) -> NDArray[np.float32]:
    """The point the object stands on: the middle of the lower side of its box, [3]."""
    low, high = data.vertices.min(axis=0), data.vertices.max(axis=0)
    return np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]], np.float32)


def stand(data: MeshData, base: NDArray[np.float32], placement: Placement) -> Matrix:
    """The object's matrix: the rig's, at the base; with a real size, scaled so that the longest side has it."""
    rig = Matrix(placement.matrix)
    matrix = rig @ Matrix.Translation(base.tolist())
    if placement.size > 0.0:
        sides = np.ptp(data.vertices, axis=0) * np.abs(np.array(rig.to_scale()))
        matrix = matrix @ Matrix.Scale(placement.size / max(float(sides.max()), 1e-9), 4)
    return matrix


def read_request(folder: Path) -> Request:
    """The request a job's folder was made by; OutputError if there is none."""
    try:
        return Request.from_json((folder / "request.json").read_text(encoding="utf-8"))
    except OSError:
        raise OutputError(f"{folder} is not a job's folder.", "Choose a folder that holds request.json.") from None


def build_mesh(name: str, data: MeshData, normals: Normals | None) -> bpy.types.Mesh:
    """A mesh with UVs, smooth, with the normals of its corners."""
    mesh = bpy.data.meshes.new(name)
    count = len(data.faces)
    mesh.vertices.add(len(data.vertices))
    mesh.vertices.foreach_set("co", data.vertices.ravel())
    mesh.loops.add(count * 3)
    mesh.loops.foreach_set("vertex_index", data.faces.ravel())
    mesh.polygons.add(count)
    mesh.polygons.foreach_set("loop_start", np.arange(0, count * 3, 3, dtype=np.int32))
    mesh.polygons.foreach_set("use_smooth", np.ones(count, bool))
    layer = mesh.uv_layers.new(name="UVMap")
    layer.uv.foreach_set("vector", data.corner_uvs.ravel())
    mesh.update(calc_edges=True)
    changed = mesh.validate(clean_customdata=False)
    if normals is not None and not changed:
        if normals.per_vertex:
            mesh.normals_split_custom_set_from_vertices(normals.values)
        else:
            mesh.normals_split_custom_set(normals.values)
    return mesh


def _describe(result: Object, request: Request, folder: Path) -> None:
    """Say on the object how it was made."""
    result["dreamlathe_prompt"] = request.prompt
    result["dreamlathe_seed"] = request.seed
    result["dreamlathe_model"] = request.model
    if request.references:
        result["dreamlathe_pictures"] = ", ".join(each.name for each in request.references)
    result["dreamlathe_version"] = version()
    result["dreamlathe_blender_version"] = bpy.app.version_string
    result["dreamlathe_request"] = request.to_json()
    result["dreamlathe_folder"] = str(folder)
    result["dreamlathe_made"] = time.time()
    try:
        result["dreamlathe_metrics"] = (folder / "metrics.json").read_text(encoding="utf-8")
    except OSError:
        return


def last_result(context: Context) -> Object | None:
    """The object of the newest result that is in the scene, by what was noted on it."""
    made = [each for each in scene_of(context).objects if "dreamlathe_made" in each]
    return max(made, key=lambda each: float(cast("Any", each)["dreamlathe_made"]), default=None)


def _own_collection(scene: Scene, name: str, within: str) -> Collection:
    """A new collection for one result: in the one named ``within``, or in the scene's collection of all results."""
    above = next((each for each in scene.collection.children_recursive if each.name == within), None)
    above = above or next((each for each in scene.collection.children if each.name.split(".")[0] == COLLECTION), None)
    if above is None:
        above = bpy.data.collections.new(COLLECTION)
        scene.collection.children.link(above)
    own = bpy.data.collections.new(name)
    above.children.link(own)
    return own


def select_only(scene: Scene, result: Object) -> None:
    """Make the result the selected and active object, unless someone is editing another one."""
    context = bpy.context
    shown = scene_of(context) == scene
    layer = layer_of(context) if shown else scene.view_layers[0]
    layer.update()  # or it does not know the new object yet
    if result.name not in layer.objects or (shown and context.mode != "OBJECT"):
        return
    for each in layer.objects.selected:
        each.select_set(False, view_layer=layer)
    result.select_set(True, view_layer=layer)
    layer.objects.active = result
