"""From a job's folder to an object in the scene. Data only, no operators: works in every mode and without a window."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import bpy
import numpy as np
from bpy.types import Collection, Image, Material, Object, Scene
from mathutils import Matrix

from ..backend.errors import OutputError
from ..backend.request import Request
from .blender import layer_of, scene_of, version
from .glb import MeshData, read_glb

COLLECTION = "Dreamlathe"
PLACEMENT = "placement.json"


def import_result(folder: Path, scene: Scene, matrix: Matrix) -> Object:
    """Add the mesh of a finished job to the scene and return its object.

    The object stands at ``matrix``, the rig's, in a collection of its own, with one material and a packed texture. Its
    custom properties hold the request, the seed, the versions and the metrics. Raises OutputError if the folder holds
    no finished job, and then nothing was added.
    """
    request = read_request(folder)
    data = read_glb(folder / "mesh.glb")
    name = request.title
    mesh = build_mesh(name, data)
    mesh.materials.append(build_material(name, data))
    result = bpy.data.objects.new(name, mesh)
    result.matrix_world = matrix
    _describe(result, request, folder)
    _own_collection(scene, f"{name} {request.seed}").objects.link(result)
    _select_only(scene, result)
    return result


def read_request(folder: Path) -> Request:
    """The request a job's folder was made by; OutputError if there is none."""
    try:
        return Request.from_json((folder / "request.json").read_text(encoding="utf-8"))
    except OSError:
        raise OutputError(f"{folder} is not a job's folder.", "Choose a folder that holds request.json.") from None


def write_placement(folder: Path, matrix: Matrix) -> None:
    """Note in the job's folder where its result belongs, so that a later import finds the place again."""
    rows = [[float(value) for value in row] for row in matrix]
    (folder / PLACEMENT).write_text(json.dumps({"matrix_world": rows}), encoding="utf-8")


def read_placement(folder: Path) -> Matrix | None:
    """Where the result belongs, if that was noted."""
    try:
        return Matrix(json.loads((folder / PLACEMENT).read_text(encoding="utf-8"))["matrix_world"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def build_mesh(name: str, data: MeshData) -> bpy.types.Mesh:
    """A mesh with UVs, smooth, with the file's normals."""
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
    if data.corner_normals is not None and not changed:
        mesh.normals_split_custom_set(data.corner_normals.reshape(-1, 3).tolist())
    return mesh


def build_material(name: str, data: MeshData) -> Material:
    """An opaque Principled material with the packed picture as its base colour."""
    material = bpy.data.materials.new(name)
    if material.node_tree is None:  # before Blender 5 a new material has no nodes
        material.use_nodes = True
    tree = material.node_tree
    assert tree is not None
    tree.nodes.clear()
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    output.location = (300, 0)
    surface = tree.nodes.new("ShaderNodeBsdfPrincipled")
    inputs = cast("Any", surface.inputs)
    inputs["Roughness"].default_value = data.roughness
    inputs["Metallic"].default_value = data.metallic
    texture = tree.nodes.new("ShaderNodeTexImage")
    assert isinstance(texture, bpy.types.ShaderNodeTexImage)
    texture.image = pack_image(name, data.image)
    texture.location = (-320, 0)
    tree.links.new(cast("Any", texture.outputs)["Color"], inputs["Base Color"])
    tree.links.new(surface.outputs["BSDF"], output.inputs["Surface"])
    return material


def pack_image(name: str, content: bytes) -> Image:
    """A picture file as an image packed into the .blend."""
    image = bpy.data.images.new(name, 8, 8)
    image.pack(data=cast("Any", content), data_len=len(content))
    image.source = "FILE"
    cast("Any", image).colorspace_settings.name = "sRGB"
    if not image.has_data and tuple(cast("Any", image).size) == (0, 0):
        bpy.data.images.remove(image)
        raise OutputError("The texture of the result cannot be read.", "Run the job again.")
    return image


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
    try:
        result["dreamlathe_metrics"] = (folder / "metrics.json").read_text(encoding="utf-8")
    except OSError:
        return


def _own_collection(scene: Scene, name: str) -> Collection:
    """A new collection for one result, within the scene's collection of all results."""
    above = next((each for each in scene.collection.children if each.name.split(".")[0] == COLLECTION), None)
    if above is None:
        above = bpy.data.collections.new(COLLECTION)
        scene.collection.children.link(above)
    own = bpy.data.collections.new(name)
    above.children.link(own)
    return own


def _select_only(scene: Scene, result: Object) -> None:
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
