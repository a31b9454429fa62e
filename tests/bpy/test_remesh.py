"""Quads in place of a dense result: where it stands, with its colours and its shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.request import Request
from tests.bpy.blender import Matrix, bpy
from tests.bpy.glb_fixture import write_result


@pytest.fixture
def dense(extension: Any, tmp_path: Path) -> Any:
    """A result that is moved, turned and scaled, made dense by subdivision; red."""
    write_result(tmp_path / "job", json.loads(Request(prompt="a red duck", seed=7).to_json()))
    matrix = Matrix.LocRotScale((1, 2, 3), Matrix.Rotation(0.7, 3, "Z"), (2, 2, 2))
    placement = extension("bridge.record").Placement(matrix=tuple(map(tuple, matrix)))
    result = extension("bridge.result").import_result(tmp_path / "job", bpy.context.scene, placement)
    result.modifiers.new("Finer", "SUBSURF").levels = 4
    result.modifiers["Finer"].subdivision_type = "SIMPLE"
    bpy.ops.object.modifier_apply(modifier="Finer")
    bpy.ops.mesh.customdata_custom_splitnormals_clear()
    return result


def test_quads_with_colour_and_normals(dense: Any) -> None:
    scene = bpy.context.scene
    before = (scene.render.engine, scene.cycles.samples)
    assert bpy.ops.dreamlathe.quad_remesh(faces=600, texture_size=128) == {"FINISHED"}
    quads = bpy.context.view_layer.objects.active
    assert quads is not dense
    assert quads.name.startswith("a red duck quads")
    assert sum(len(each.vertices) == 4 for each in quads.data.polygons) > 0.9 * len(quads.data.polygons)
    assert 200 < len(quads.data.polygons) < 1800
    assert np.allclose(quads.matrix_world, dense.matrix_world)
    assert np.allclose(quads.dimensions, dense.dimensions, rtol=0.1)
    assert dense.hide_get()
    assert quads.users_collection == dense.users_collection
    assert quads["dreamlathe_seed"] == 7
    assert (scene.render.engine, scene.cycles.samples) == before

    nodes = quads.active_material.node_tree.nodes
    surface = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
    colour = surface.inputs["Base Color"].links[0].from_node.image
    normal = surface.inputs["Normal"].links[0].from_node.inputs["Color"].links[0].from_node.image
    assert colour.packed_file is not None and normal.packed_file is not None
    pixels = np.array(colour.pixels[:]).reshape(-1, 4)
    painted = pixels[pixels[:, :3].sum(axis=1) > 0.05]
    assert len(painted) > 0.3 * len(pixels)
    assert np.median(painted[:, 0]) > 5 * np.median(painted[:, 2])  # red
    bumps = np.array(normal.pixels[:]).reshape(-1, 4)
    assert normal.colorspace_settings.name == "Non-Color"
    assert np.median(bumps[bumps[:, 2] > 0.1][:, 2]) > 0.9  # mostly straight out


def test_only_results_and_only_in_object_mode(dense: Any) -> None:
    bpy.ops.object.mode_set(mode="EDIT")
    assert not bpy.ops.dreamlathe.quad_remesh.poll()
    bpy.ops.object.mode_set(mode="OBJECT")
    bpy.ops.mesh.primitive_cube_add()
    assert not bpy.ops.dreamlathe.quad_remesh.poll()


def test_what_quadriflow_refuses_is_said_and_leaves_nothing(dense: Any) -> None:
    """An open surface that crosses itself is no manifold."""
    mesh = bpy.data.meshes.new("Fan")
    points = [(0, 0, 0), (0, 0, 1), (1, 0, 0), (0, 1, 0), (-1, 0, 0)]
    mesh.from_pydata(points, [], [(0, 1, 2), (0, 1, 3), (0, 1, 4)])
    dense.data = mesh
    before = set(bpy.data.objects)
    with pytest.raises(RuntimeError, match="QuadriFlow cannot make quads"):
        bpy.ops.dreamlathe.quad_remesh(faces=600, texture_size=64)
    assert set(bpy.data.objects) == before
