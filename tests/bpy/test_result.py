"""From a job's folder to one object, one material, a packed texture, where the rig stands."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.request import Request
from tests.bpy.blender import Matrix, Vector, bpy
from tests.bpy.glb_fixture import HALF, NOSE, glb, png, triangles, write_result

RIG = Matrix.LocRotScale((1, 2, 3), Matrix.Rotation(0.7, 3, "Z"), (2, 2, 2))
BASE = np.array((0.0, (NOSE[1] + HALF[1]) / 2, -HALF[2]))
"""The middle of the lower side of the box's own box."""


@pytest.fixture
def place(extension: Any) -> Any:
    """Imports a folder's result at the rig."""

    def run(folder: Path, **values: Any) -> Any:
        placement = extension("bridge.record").Placement(matrix=tuple(map(tuple, RIG)), **values)
        result = extension("bridge.result").import_result(folder, bpy.context.scene, placement)
        bpy.context.view_layer.update()
        return result

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_result(tmp_path / "job", json.loads(Request(prompt="a red duck", seed=7).to_json()), texture_size=1024)
    return tmp_path / "job"


def corners(mesh: Any) -> np.ndarray:
    return np.array([[mesh.vertices[i].co[:] for i in polygon.vertices] for polygon in mesh.polygons])


def test_one_object_one_material_one_packed_texture(place: Any, folder: Path) -> None:
    result = place(folder)
    assert [each for each in bpy.data.objects if each.type == "MESH"] == [result]
    assert [len(bpy.data.meshes), len(bpy.data.materials), len(bpy.data.images)] == [1, 1, 1]
    assert len(result.material_slots) == 1
    tree = result.active_material.node_tree
    surface = next(node for node in tree.nodes if node.type == "BSDF_PRINCIPLED")
    texture = surface.inputs["Base Color"].links[0].from_node
    assert texture.type == "TEX_IMAGE"
    assert texture.image.packed_file is not None
    assert tuple(texture.image.size) == (1024, 1024)
    assert texture.image.colorspace_settings.name == "sRGB"
    assert surface.inputs["Roughness"].default_value == pytest.approx(0.8)
    assert surface.inputs["Alpha"].default_value == 1.0
    output = next(node for node in tree.nodes if node.type == "OUTPUT_MATERIAL")
    assert output.inputs["Surface"].links[0].from_node == surface


def test_the_mesh_is_whole_smooth_and_faces_the_front(place: Any, folder: Path) -> None:
    result = place(folder)
    mesh = result.data
    assert len(mesh.vertices) == 9  # 14 triangles of 3 own corners each, welded
    assert np.allclose(corners(mesh) + BASE, triangles(), atol=1e-6)
    assert np.array(min(mesh.vertices, key=lambda v: v.co.y).co) + BASE == pytest.approx(NOSE)
    assert max(v.co.z for v in mesh.vertices) == pytest.approx(2 * HALF[2])
    assert min(v.co.z for v in mesh.vertices) == 0.0  # the origin is at the base
    edges = {key for polygon in mesh.polygons for key in polygon.edge_keys}
    assert all(sum(key in polygon.edge_keys for polygon in mesh.polygons) == 2 for key in edges)  # watertight
    uvs = np.array([each.vector[:] for each in mesh.uv_layers.active.uv])
    assert uvs[:3] == pytest.approx(np.array([(0.1, 0.8), (0.9, 0.8), (0.5, 0.2)]))  # glTF counts v from the top
    assert all(polygon.use_smooth for polygon in mesh.polygons)
    normals = np.array([each.vector[:] for each in mesh.corner_normals])
    expected = np.repeat([polygon.normal[:] for polygon in mesh.polygons], 3, axis=0)
    assert np.allclose(normals, expected, atol=0.01)  # the file's normals are the faces' own


def test_normals_of_a_smooth_surface_are_given_once_a_vertex(extension: Any) -> None:
    """They are those of the file all the same."""
    module, data = extension("bridge.result"), extension("bridge.glb").MeshData
    corners = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0.2)], np.float32)
    faces = np.array([(0, 1, 2), (1, 3, 2)], np.int32)
    bent = np.array([(0, 0.6, 0.8), (0, 0, 1), (0.6, 0, 0.8), (0, -0.6, 0.8)], np.float32)
    plain = data(corners, faces, bent[faces], np.zeros((2, 3, 2), np.float32), b"", 1.0, 0.0)
    normals = module.listed_normals(plain)
    assert normals.per_vertex
    mesh = module.build_mesh("plain", plain, normals)
    found = np.array([each.vector[:] for each in mesh.corner_normals])
    assert np.allclose(found, bent[faces].reshape(-1, 3), atol=0.01)


def test_the_picture_is_the_right_way_up(place: Any, folder: Path) -> None:
    """v = 1 is the top row, which is green."""
    place(folder)
    pixels = np.array(bpy.data.images[0].pixels[:]).reshape(1024, 1024, 4)
    assert pixels[-1, 0, 1] > pixels[-1, 0, 0]
    assert pixels[0, 0, 0] > pixels[0, 0, 1]


def test_it_stands_where_the_rig_stands(place: Any, folder: Path) -> None:
    result = place(folder)
    assert np.allclose(result.matrix_world, RIG @ Matrix.Translation(BASE), atol=1e-6)
    nose = min(result.data.vertices, key=lambda v: v.co.y).co
    assert np.allclose(result.matrix_world @ nose, RIG @ Vector(NOSE), atol=1e-5)
    turned = Vector((0, -2, 0))
    turned.rotate(Matrix.Rotation(0.7, 3, "Z"))
    front = result.matrix_world @ Vector((0, -1, 0)) - result.matrix_world.translation
    assert np.allclose(front, turned, atol=1e-5)
    assert bpy.context.view_layer.objects.active == result
    assert bpy.context.selected_objects == [result]


def test_a_real_size_is_the_longest_side(place: Any, folder: Path) -> None:
    """The base stays where it is; the rig's scale counts no more."""
    result = place(folder, size=0.7)
    assert max(result.dimensions) == pytest.approx(0.7, rel=1e-5)
    assert np.allclose(result.matrix_world.translation, RIG @ Vector(BASE), atol=1e-6)


def test_it_goes_into_the_named_collection(place: Any, folder: Path) -> None:
    own = bpy.data.collections.new("Toys")
    bpy.context.scene.collection.children.link(own)
    result = place(folder, collection="Toys")
    assert result.users_collection[0].name in own.children
    assert "Dreamlathe" not in bpy.data.collections
    assert place(folder, collection="Gone").users_collection[0].name in bpy.data.collections["Dreamlathe"].children


def test_as_an_asset_it_has_its_picture_and_tags(place: Any, folder: Path) -> None:
    assert place(folder).asset_data is None
    (folder / "thumbnail.png").write_bytes(png(64))
    result = place(folder, asset=True)
    assert [tag.name for tag in result.asset_data.tags] == ["dreamlathe", "red", "duck"]
    assert "a red duck (seed 7" in result.asset_data.description
    pixels = np.array(result.preview.image_pixels_float[:]).reshape(-1, 4)
    assert pixels[..., 0].mean() > 0.5  # the picture is red
    assert pixels[..., 2].mean() < 0.2


def test_it_tells_how_it_was_made(place: Any, folder: Path) -> None:
    result = place(folder)
    assert [result[f"dreamlathe_{name}"] for name in ("prompt", "seed", "model")] == ["a red duck", 7, "toybox"]
    assert Request.from_json(result["dreamlathe_request"]) == Request(prompt="a red duck", seed=7)
    assert json.loads(result["dreamlathe_metrics"]) == {"seconds": 1.5}
    assert result["dreamlathe_version"].count(".") == 2
    assert [each.name for each in result.users_collection] == ["a red duck 7"]
    assert result.users_collection[0].name in bpy.data.collections["Dreamlathe"].children


def test_two_results_live_side_by_side(place: Any, folder: Path) -> None:
    first, second = (place(folder) for _ in range(2))
    assert first != second
    assert first.users_collection != second.users_collection
    assert len(bpy.data.collections["Dreamlathe"].children) == 2
    assert len(bpy.context.scene.collection.children) == 1


def test_saved_and_opened_again_it_is_complete(place: Any, folder: Path, tmp_path: Path) -> None:
    place(folder)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    for path in folder.iterdir():
        path.unlink()
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    image = bpy.data.images[0]
    assert len(image.pixels) == 1024 * 1024 * 4
    assert len(bpy.data.objects) == 1


def test_in_edit_mode_the_edited_object_stays_active(place: Any, folder: Path) -> None:
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.object
    bpy.ops.object.mode_set(mode="EDIT")
    result = place(folder)
    assert (bpy.context.mode, bpy.context.view_layer.objects.active) == ("EDIT_MESH", cube)
    assert result.name in bpy.context.scene.objects
    assert bpy.ops.dreamlathe.result_select() == {"FINISHED"}
    assert (bpy.context.mode, bpy.context.view_layer.objects.active) == ("OBJECT", result)
    assert bpy.context.selected_objects == [result]
    bpy.data.objects.remove(result)
    assert not bpy.ops.dreamlathe.result_select.poll()


def test_the_operator_imports_where_the_job_was_made(extension: Any, folder: Path, settings: Any) -> None:
    module = extension("bridge.record")
    request = extension("backend.request").Request(prompt="a red duck", seed=7)
    module.write_record(folder, module.Record(request, module.Placement(matrix=tuple(map(tuple, RIG)))))
    assert bpy.ops.dreamlathe.result_import(directory=str(folder), use_settings=True) == {"FINISHED"}
    result = bpy.data.objects["a red duck"]
    bpy.context.view_layer.update()
    assert np.allclose(result.matrix_world, RIG @ Matrix.Translation(BASE), atol=1e-6)
    assert (settings.prompt, settings.seed) == ("a red duck", 7)


def test_a_node_that_is_turned_and_moved_counts(extension: Any, tmp_path: Path) -> None:
    half = math.sqrt(0.5)
    path = tmp_path / "a.glb"
    path.write_bytes(glb(node={"rotation": [half, 0, 0, half], "translation": [0, 2, 0], "scale": [3, 3, 3]}))
    data = extension("bridge.glb").read_glb(path)
    # glTF: 90 degrees about X takes its Z to −Y and its Y to Z; then two up. Front (+Z) now looks down.
    expected = np.array([NOSE[0], -NOSE[2], NOSE[1]]) * 3 + (0, 0, 2)
    assert np.abs(data.vertices - expected).sum(axis=1).min() < 1e-5
    faces = data.vertices[data.faces]
    own = np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])
    assert ((own[:, None] * data.corner_normals).sum(axis=-1) > 0).all()


def broken(content: bytes) -> list[tuple[str, bytes]]:
    return [
        ("empty", b""),
        ("text", b"this is no mesh"),
        ("short", content[: len(content) // 2]),
        ("no texture", content.replace(b"baseColorTexture", b"baseColorTextura")),
        ("wrong count", content.replace(b'"count": 42', b'"count": 99')),
        ("broken picture", content.replace(b"IDAT", b"IDAX")),
        ("no picture", content.replace(b"\x89PNG", b"\x89PGN")),
        ("no triangles", content.replace(b'"material": 0', b'"mode": 1, "m":0')),
    ]


@pytest.mark.parametrize("name", [name for name, _ in broken(b"")])
def test_a_broken_file_is_an_error_and_adds_nothing(extension: Any, place: Any, folder: Path, name: str) -> None:
    (folder / "mesh.glb").write_bytes(dict(broken(glb()))[name])
    with pytest.raises(extension("backend.errors").OutputError):
        place(folder)
    assert len(bpy.data.objects) == len(bpy.data.collections) == 0


def test_a_folder_without_a_job_is_an_error(extension: Any, place: Any, tmp_path: Path) -> None:
    with pytest.raises(extension("backend.errors").OutputError, match="not a job's folder"):
        place(tmp_path)
