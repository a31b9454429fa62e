"""Mesh files and pictures."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.cameras import CameraBatch, orbit_cameras, world_to_ndc
from backend.errors import OutputError
from backend.meshing import Mesh, read_mesh, render_mesh, write_glb, write_obj, write_thumbnail, write_turntable
from backend.meshing.mesh import weld

COLOURS = np.array(
    [[200, 20, 20], [20, 180, 20], [30, 30, 220], [220, 200, 20], [160, 20, 180], [20, 170, 170]], np.uint8
)
"""sRGB of the sides −x, +x, −y, +y, −z, +z."""
EXTENT = np.array([0.6, 0.3, 0.45], np.float32)


def painted_box() -> Mesh:
    """A box whose six sides have a colour each, in a texture of 4 × 2 tiles of 8 texels."""
    texture = np.zeros((32, 32, 3), np.uint8)
    vertices, faces, normals, uvs = [], [], [], []
    for side in range(6):
        axis, sign = side // 2, 2 * (side % 2) - 1
        normal = np.zeros(3)
        normal[axis] = sign
        across = np.roll(normal, 1) * sign
        upward = np.cross(normal, across)
        row, column = divmod(side, 4)
        texture[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = COLOURS[side]
        for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            vertices.append((normal + s * across + t * upward) * EXTENT)
            normals.append(normal)
            uvs.append(((column * 8 + 4 + 3 * s) / 32, 1 - (row * 8 + 4 - 3 * t) / 32))
        faces += [[4 * side, 4 * side + 1, 4 * side + 2], [4 * side, 4 * side + 2, 4 * side + 3]]
    return Mesh(
        np.array(vertices, np.float32),
        np.array(faces, np.int32),
        np.array(normals, np.float32),
        np.array(uvs, np.float32),
        texture,
    )


def glb_json(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    return json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])


@pytest.fixture
def mesh() -> Mesh:
    return painted_box()


def test_glb_comes_back_unchanged(mesh: Mesh, tmp_path: Path):
    write_glb(mesh, tmp_path / "mesh.glb")
    back = read_mesh(tmp_path / "mesh.glb")
    assert np.allclose(back.vertices, mesh.vertices)
    assert np.array_equal(back.faces, mesh.faces)
    assert np.allclose(back.normals, mesh.normals, atol=1e-6)
    assert np.allclose(back.uvs, mesh.uvs, atol=1e-6)
    assert np.array_equal(back.texture, mesh.texture)


def test_glb_is_y_up_and_opaque(mesh: Mesh, tmp_path: Path):
    write_glb(mesh, tmp_path / "mesh.glb")
    content = glb_json(tmp_path / "mesh.glb")
    primitive = content["meshes"][0]["primitives"][0]
    position = content["accessors"][primitive["attributes"]["POSITION"]]
    # The rig's height (z) is the file's y, and its depth (y) the file's z; nodes do not turn it back.
    assert np.allclose(position["max"], EXTENT[[0, 2, 1]])
    assert len(content["nodes"]) == 1
    assert not {"matrix", "rotation", "scale"} & set(content["nodes"][0])
    material = content["materials"][0]
    assert material["alphaMode"] == "OPAQUE"
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0.0
    assert material["pbrMetallicRoughness"]["roughnessFactor"] == pytest.approx(0.8)
    assert content["images"][0]["mimeType"] == "image/png"
    assert "bufferView" in content["images"][0]
    # glTF's v runs down: the first texel row is v = 0.
    data = (tmp_path / "mesh.glb").read_bytes()
    start = 20 + struct.unpack("<I", data[12:16])[0] + 8
    view = content["bufferViews"][content["accessors"][primitive["attributes"]["TEXCOORD_0"]]["bufferView"]]
    place = start + view.get("byteOffset", 0)
    uvs = np.frombuffer(data[place : place + view["byteLength"]], np.float32).reshape(-1, 2)
    assert np.allclose(uvs, np.stack([mesh.uvs[:, 0], 1 - mesh.uvs[:, 1]], axis=1), atol=1e-6)


def test_front_of_the_file_is_plus_z(tmp_path: Path):
    mesh = painted_box()
    mesh.vertices[:, 1] -= 0.3
    write_glb(mesh, tmp_path / "mesh.glb")
    content = glb_json(tmp_path / "mesh.glb")
    position = content["accessors"][content["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert position["max"][2] == pytest.approx(0.6)
    assert position["min"][2] == pytest.approx(0.0, abs=1e-6)


def test_obj_comes_back_with_every_corner(mesh: Mesh, tmp_path: Path):
    write_obj(mesh, tmp_path / "mesh.obj")
    back = read_mesh(tmp_path / "mesh.obj")
    assert np.allclose(back.vertices[back.faces], mesh.vertices[mesh.faces], atol=1e-5)
    assert np.allclose(back.uvs[back.faces], mesh.uvs[mesh.faces], atol=1e-5)
    assert np.array_equal(back.texture, mesh.texture)


def test_obj_is_opaque_and_whole(mesh: Mesh, tmp_path: Path):
    write_obj(mesh, tmp_path / "thing.obj")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thing.mtl", "thing.obj", "thing.png"]
    material = (tmp_path / "thing.mtl").read_text().split("\n")
    assert "d 1" in material
    assert not any(line.startswith("Tr") for line in material)
    assert "map_Kd thing.png" in material
    lines = (tmp_path / "thing.obj").read_text().split("\n")
    assert "mtllib thing.mtl" in lines
    # Positions are shared across seams: the surface is one piece.
    assert sum(line.startswith("v ") for line in lines) == len(weld(mesh)[0]) == 8
    assert sum(line.startswith("f ") for line in lines) == len(mesh.faces)
    assert max(float(line.split()[2]) for line in lines if line.startswith("v ")) == pytest.approx(EXTENT[2])


def test_files_are_the_same_each_time(mesh: Mesh, tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_glb(mesh, tmp_path / folder / "m.glb")
        write_obj(mesh, tmp_path / folder / "m.obj")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.mark.parametrize("write", [write_glb, write_obj])
def test_missing_folder_is_one_clear_error(write, mesh: Mesh, tmp_path: Path):
    with pytest.raises(OutputError, match="cannot be written") as caught:
        write(mesh, tmp_path / "nowhere" / "mesh.glb")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_failed_write_keeps_the_old_file(mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "mesh.glb"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_glb(mesh, path)
    assert [p.name for p in tmp_path.iterdir()] == ["mesh.glb"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("content", [None, b"", b"glTF", b"v 0 0 0\n"])
def test_what_is_no_mesh_is_one_clear_error(content: bytes | None, tmp_path: Path):
    for name in ("mesh.glb", "mesh.obj"):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(OutputError, match="cannot be read"):
            read_mesh(tmp_path / name)


def test_plain_obj_gets_normals_and_a_white_texel(tmp_path: Path):
    """A pyramid without normals, UVs or material, Y-up."""
    (tmp_path / "plain.obj").write_text(
        "v 0 1 0\nv 1 0 1\nv 1 0 -1\nv -1 0 -1\nv -1 0 1\nf 1 2 3\nf 1 3 4\nf 1 4 5\nf 1 5 2\nf 2 5 4 3\n"
    )
    mesh = read_mesh(tmp_path / "plain.obj")
    top = mesh.vertices[:, 2].argmax()
    assert np.allclose(mesh.vertices[top], [0, 0, 1])
    assert np.allclose(mesh.normals[top], [0, 0, 1], atol=1e-6)
    assert mesh.faces.shape == (6, 3)
    assert mesh.uvs.shape == (5, 2)
    assert mesh.texture.shape == (1, 1, 3)


# Pictures


def shown_side(mesh: Mesh, azimuth: float, elevation: float) -> int:
    """The side whose hue the middle of the picture has."""
    image = render_mesh(mesh, orbit_cameras(azimuth, elevation, 3.0, 40.0), 33, 33)
    middle = image[0, 16, 16]
    assert middle[3] == 1.0
    hue = (middle[:3] / np.linalg.norm(middle[:3])) @ (COLOURS / np.linalg.norm(COLOURS, axis=1, keepdims=True)).T
    return int(hue.argmax())


@pytest.mark.parametrize(
    ("azimuth", "elevation", "side"), [(0, 0, 2), (90, 0, 1), (180, 0, 3), (-90, 0, 0), (0, 90, 5), (0, -90, 4)]
)
def test_each_side_is_seen_from_its_own(azimuth: float, elevation: float, side: int):
    assert shown_side(painted_box(), azimuth, elevation) == side


def test_silhouette_is_where_the_camera_projects_it(mesh: Mesh):
    """Of the box's front: its projected rectangle, with alpha summed to its area."""
    cameras = orbit_cameras(0.0, 0.0, 4.0, 30.0)
    corners = world_to_ndc(cameras, mesh.vertices)[0]
    image = render_mesh(mesh, cameras, 100, 100)
    width, height = np.ptp(corners, axis=0) * 50
    assert image[0, ..., 3].sum() == pytest.approx(width * height, rel=0.02)
    rows, columns = np.nonzero(image[0, ..., 3] > 0.5)
    assert abs((columns.min() + columns.max()) / 2 - 49.5) <= 0.5
    assert abs((rows.min() + rows.max()) / 2 - 49.5) <= 0.5


def test_camera_shift_moves_the_picture(mesh: Mesh):
    cameras = orbit_cameras(0.0, 0.0, 4.0, 30.0)
    shifted = CameraBatch(cameras.camera_to_world, cameras.focal, cameras.center + np.array([0.2, 0.1], np.float32))
    plain, moved = render_mesh(mesh, cameras, 100, 100)[0], render_mesh(mesh, shifted, 100, 100)[0]
    # 0.2 of half the width to the right, 0.1 of half the height up.
    assert np.allclose(moved[:-5, 10:], plain[5:, :-10], atol=1e-4)


def test_texture_is_perspective_correct():
    """A floor seen at a slant: a checker's line halfway in texture is not halfway in the picture."""
    vertices = np.array([[-1, -2, 0], [1, -2, 0], [1, 2, 0], [-1, 2, 0]], np.float32)
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:32] = 255  # the far half: v > 0.5 is y > 0
    floor = Mesh(
        vertices,
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        np.tile(np.array([0, 0, 1], np.float32), (4, 1)),
        (vertices[:, :2] / np.array([2, 4], np.float32) + np.float32(0.5)).astype(np.float32),
        texture,
    )
    cameras = orbit_cameras(0.0, 25.0, 4.0, 60.0)
    column = render_mesh(floor, cameras, 201, 201)[0, :, 100]
    white = np.flatnonzero((column[:, 3] == 1.0) & (column[:, 0] > 0.3))
    middle = (1 - world_to_ndc(cameras, np.zeros((1, 3), np.float32))[0, 0, 1]) * 100.5
    assert abs(white.max() + 1 - middle) <= 1.5
    rows = np.flatnonzero(column[:, 3] == 1.0)
    assert abs((rows.min() + rows.max()) / 2 - middle) > 10


def test_nearer_hides_farther_and_behind_is_not_drawn(mesh: Mesh):
    far = painted_box()
    far.vertices = far.vertices * 0.5 + np.array([0, 3.0, 0], np.float32)
    behind = painted_box()
    behind.vertices = behind.vertices + np.array([0, -10.0, 0], np.float32)
    both = Mesh(
        np.concatenate([far.vertices, mesh.vertices, behind.vertices]),
        np.concatenate([far.faces, mesh.faces + 24, behind.faces + 48]),
        np.concatenate([far.normals, mesh.normals, behind.normals]),
        np.concatenate([far.uvs, mesh.uvs, behind.uvs]),
        mesh.texture,
    )
    cameras = orbit_cameras([0.0, 30.0], 0.0, 4.0, 30.0)
    assert np.array_equal(render_mesh(both, cameras, 64, 64)[0], render_mesh(mesh, cameras, 64, 64)[0])


def test_light_shows_relief(mesh: Mesh):
    """Where a corner points at the camera, its sides differ in brightness though they are of one colour."""
    mesh.texture[:] = 200
    image = render_mesh(mesh, orbit_cameras(40.0, 30.0, 3.0, 40.0), 64, 64)[0]
    values = image[image[..., 3] == 1.0][:, 0]
    assert np.ptp(values) > 0.1
    assert len(np.unique(values.round(1))) >= 2


@pytest.mark.parametrize("ending", [".webp", ".gif"])
def test_turntable(ending: str, mesh: Mesh, tmp_path: Path):
    write_turntable(mesh, tmp_path / "turntable.png", tmp_path / f"turntable{ending}", size=48)
    sheet = np.asarray(Image.open(tmp_path / "turntable.png"))
    assert sheet.shape == (2 * 48, 8 * 48, 3)
    assert (sheet[0, 0] == 255).all()
    tiles = sheet.reshape(2, 48, 8, 48, 3).swapaxes(1, 2)
    for row in tiles:
        colours = [tuple(np.median(tile[22:26, 22:26].reshape(-1, 3), axis=0)) for tile in row]
        assert len(set(colours)) >= 4
    # The front (blue) comes first, the side seen from +X (green) third.
    assert tiles[0, 0, 24, 24].argmax() == 2
    assert tiles[0, 2, 24, 24].argmax() == 1
    with Image.open(tmp_path / f"turntable{ending}") as animation:
        assert getattr(animation, "n_frames", 1) == 36
        assert animation.size == (48, 48)


def test_thumbnail(mesh: Mesh, tmp_path: Path):
    """From the front, the side and above, with nothing around it."""
    write_thumbnail(mesh, tmp_path / "thumbnail.png", size=64)
    picture = np.asarray(Image.open(tmp_path / "thumbnail.png"))
    assert picture.shape == (64, 64, 4)
    assert picture[0, 0, 3] == 0
    assert picture[32, 32, 3] == 255
    solid = picture[picture[..., 3] == 255][:, :3].argmax(axis=1)
    assert {1, 2} <= set(solid.tolist())  # the +X side is green, the front blue


def test_turntable_of_another_kind_is_refused(mesh: Mesh, tmp_path: Path):
    with pytest.raises(OutputError, match="neither"):
        write_turntable(mesh, tmp_path / "t.png", tmp_path / "t.mp4")
    assert not list(tmp_path.iterdir())
