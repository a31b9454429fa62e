"""From a dense result to quads: QuadriFlow, new UVs, and the dense mesh's colours and normals baked onto them."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, cast

import bpy
from bpy.types import Context, Image, Material, Object, Scene

from ..backend.errors import OutputError
from .blender import layer_of, scene_of
from .material import quad_material

_REACH = 0.02
"""How far from the quads the dense surface may lie, in diagonals of its box."""


class RemeshSettings(NamedTuple):
    """How the quads shall be."""

    faces: int = 4000
    texture_size: int = 1024
    hide_dense: bool = True


def is_result(candidate: Object | None) -> bool:
    """A mesh that a job made."""
    return candidate is not None and candidate.type == "MESH" and "dreamlathe_request" in candidate


def quad_remesh(context: Context, dense: Object, settings: RemeshSettings) -> Object:
    """Add a mesh of quads in place of ``dense``, with a texture and a normal map; returns its object.

    Object mode only. Raises OutputError if QuadriFlow cannot make quads of it; nothing is added then.
    """
    quads = _copy(context, dense)
    try:
        _quadriflow(quads, settings.faces)
        _unwrap(quads)
    except RuntimeError as error:
        bpy.data.objects.remove(quads)
        reason = str(error).removeprefix("Error: ").strip().rstrip(".")
        raise OutputError(
            f"QuadriFlow cannot make quads of this mesh ({reason}).", "Choose another number of faces."
        ) from None
    pictures = [_picture(quads.name, kind, settings.texture_size) for kind in ("colour", "normal")]
    material = quad_material(quads.name, *pictures)
    cast("Any", quads.data).materials.append(material)
    with _cycles(scene_of(context)):
        _bake(context, dense, quads, material, pictures[0], "DIFFUSE")
        _bake(context, dense, quads, material, pictures[1], "NORMAL")
    for picture in pictures:
        picture.pack()
    if settings.hide_dense:
        dense.hide_set(True)
        dense.hide_render = True
    _select(context, quads)
    return quads


def _copy(context: Context, dense: Object) -> Object:
    """The dense mesh's shape alone, in the same place and collections."""
    mesh: Any = cast("Any", dense.data).copy()
    mesh.materials.clear()
    mesh.name = f"{dense.name} quads"
    quads = bpy.data.objects.new(mesh.name, mesh)
    quads.matrix_world = dense.matrix_world
    for name, value in cast("Any", dense).items():
        if name.startswith("dreamlathe_"):
            quads[name] = value
    for collection in dense.users_collection:
        collection.objects.link(quads)
    layer_of(context).update()
    _select(context, quads)
    return quads


def _select(context: Context, *objects: Object) -> None:
    """Select these alone; the last one becomes active."""
    layer = layer_of(context)
    for each in list(layer.objects.selected):
        each.select_set(False)
    for each in objects:
        each.hide_set(False)
        each.select_set(True)
        layer.objects.active = each


def _quadriflow(quads: Object, faces: int) -> None:
    before = len(cast("Any", quads.data).polygons)
    if cast("Any", quads.data).has_custom_normals:
        bpy.ops.mesh.customdata_custom_splitnormals_clear()
    bpy.ops.object.quadriflow_remesh(mode="FACES", target_faces=faces, seed=0, use_mesh_symmetry=False)
    polygons = cast("Any", quads.data).polygons
    if len(polygons) == before or not any(len(each.vertices) == 4 for each in polygons):
        raise RuntimeError("it gave none")
    for polygon in polygons:
        polygon.use_smooth = True


def _unwrap(quads: Object) -> None:
    mesh: Any = quads.data
    while mesh.uv_layers:
        mesh.uv_layers.remove(mesh.uv_layers[0])
    mesh.uv_layers.new(name="UVMap")
    bpy.ops.object.mode_set(mode="EDIT")
    try:
        bpy.ops.mesh.select_all(action="SELECT")
        bpy.ops.uv.smart_project(angle_limit=math.radians(66.0), island_margin=0.005)
    finally:
        bpy.ops.object.mode_set(mode="OBJECT")


def _picture(name: str, kind: Literal["colour", "normal"], size: int) -> Image:
    picture = bpy.data.images.new(f"{name} {kind}", size, size, alpha=False)
    cast("Any", picture).colorspace_settings.name = "sRGB" if kind == "colour" else "Non-Color"
    return picture


def _bake(
    context: Context,
    dense: Object,
    quads: Object,
    material: Material,
    picture: Image,
    kind: Literal["DIFFUSE", "NORMAL"],
) -> None:
    """Bake from the dense mesh onto the quads' picture; the node that holds it must be the active one."""
    tree: Any = material.node_tree
    node = next(each for each in tree.nodes if getattr(each, "image", None) == picture)
    tree.nodes.active = node
    _select(context, dense, quads)
    bpy.ops.object.bake(
        type=kind,
        pass_filter={"COLOR"} if kind == "DIFFUSE" else set(),
        use_selected_to_active=True,
        cage_extrusion=_REACH * max(quads.dimensions.length, 1e-6),
        max_ray_distance=2.0 * _REACH * max(quads.dimensions.length, 1e-6),
        margin=8,
        use_clear=True,
    )


@contextmanager
def _cycles(scene: Scene) -> Generator[None]:
    """Cycles with few samples and no denoiser: colours and normals have no noise. The scene's settings come back."""
    view: Any = scene
    engine = view.render.engine
    view.render.engine = "CYCLES"
    wanted = {"samples": 4, "use_denoising": False, "device": "CPU"}
    before = {name: getattr(view.cycles, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(view.cycles, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(view.cycles, name, value)
        view.render.engine = engine
