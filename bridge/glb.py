"""Reading a binary glTF file: one textured triangle mesh. Standard library and numpy; glTF 2.0, sections 3.6, 3.7, 4.4.

Blender's own importer works through operators, so only in object mode, and differs from version to version.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..backend.errors import OutputError

Floats = NDArray[np.float32]
Json = dict[str, Any]

_TYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_TO_Z_UP = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float64)


class MeshData(NamedTuple):
    """A textured triangle mesh in Blender's axes (+Z up, front −Y)."""

    vertices: Floats
    """[V, 3], every place once: vertices split along seams are one again."""
    faces: NDArray[np.int32]
    """[F, 3] into the vertices."""
    corner_normals: Floats | None
    """[F, 3, 3], unit."""
    corner_uvs: Floats
    """[F, 3, 2], origin at the bottom left."""
    image: bytes
    """The picture file (PNG or JPEG) of the base colour."""
    roughness: float
    metallic: float


def read_glb(path: Path) -> MeshData:
    """Read the mesh of a .glb file; raises OutputError for a file that is missing, broken or without a texture."""
    try:
        return _mesh(*_chunks(path.read_bytes()))
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror}).", "Run the job again.") from None
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise OutputError(f"{path} is not a textured glTF mesh ({error}).", "Run the job again.") from None


def _chunks(data: bytes) -> tuple[Json, bytes]:
    """The JSON and the binary chunk."""
    magic, version, _ = struct.unpack_from("<4sII", data)
    if magic != b"glTF" or version != 2:
        raise ValueError("no glTF 2 header")
    parts: dict[bytes, bytes] = {}
    offset = 12
    while offset < len(data):
        length, kind = struct.unpack_from("<I4s", data, offset)
        parts[kind] = data[offset + 8 : offset + 8 + length]
        if len(parts[kind]) != length:
            raise ValueError("the file is cut short")
        offset += 8 + length
    return json.loads(parts[b"JSON"]), parts[b"BIN\0"]


def _mesh(gltf: Json, binary: bytes) -> MeshData:
    node, transform = _mesh_node(gltf)
    primitives = gltf["meshes"][node["mesh"]]["primitives"]
    if len(primitives) != 1 or primitives[0].get("mode", 4) != 4:
        raise ValueError("not one list of triangles")
    attributes = primitives[0]["attributes"]
    points = _accessor(gltf, binary, attributes["POSITION"]).astype(np.float64)
    count = len(points)
    corners = _accessor(gltf, binary, primitives[0]["indices"]).astype(np.int64) if "indices" in primitives[0] else None
    corners = (np.arange(count) if corners is None else corners).reshape(-1, 3)
    if corners.size == 0 or corners.max() >= count:
        raise ValueError("no triangles, or triangles of vertices that are not there")
    uvs = _unit_floats(_accessor(gltf, binary, attributes["TEXCOORD_0"]))
    normals = _accessor(gltf, binary, attributes["NORMAL"]).astype(np.float64) if "NORMAL" in attributes else None
    to_blender = _TO_Z_UP @ transform[:3, :3]
    points = points @ to_blender.T + _TO_Z_UP @ transform[:3, 3]
    vertices, faces, kept = _weld(points.astype(np.float32), corners)
    corner_uvs = uvs[corners[kept]] * np.array([1, -1], np.float32) + np.array([0, 1], np.float32)
    turned = None if normals is None else _unit(normals @ np.linalg.inv(to_blender))[corners[kept]].astype(np.float32)
    image, roughness, metallic = _material(gltf, binary, primitives[0]["material"])
    return MeshData(vertices, faces, turned, corner_uvs.astype(np.float32), image, roughness, metallic)


def _mesh_node(gltf: Json) -> tuple[Json, NDArray[np.float64]]:
    """The one node with a mesh, and its matrix in the file's scene."""
    nodes: list[Json] = gltf["nodes"]
    todo = [(index, np.eye(4)) for index in gltf["scenes"][gltf.get("scene", 0)]["nodes"]]
    found: list[tuple[Json, NDArray[np.float64]]] = []
    while todo:
        index, parent = todo.pop()
        matrix = parent @ _node_matrix(nodes[index])
        if "mesh" in nodes[index]:
            found.append((nodes[index], matrix))
        todo += [(child, matrix) for child in nodes[index].get("children", ())]
    if len(found) != 1:
        raise ValueError(f"{len(found)} meshes")
    return found[0]


def _node_matrix(node: Json) -> NDArray[np.float64]:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T  # column-major
    x, y, z, w = node.get("rotation", (0.0, 0.0, 0.0, 1.0))
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array(node.get("scale", (1.0, 1.0, 1.0)))
    matrix[:3, 3] = node.get("translation", (0.0, 0.0, 0.0))
    return matrix


def _accessor(gltf: Json, binary: bytes, index: int) -> NDArray[Any]:
    """The values of an accessor, [count, width] or [count]."""
    accessor = gltf["accessors"][index]
    view = gltf["bufferViews"][accessor["bufferView"]]
    kind, width, count = np.dtype(_TYPES[accessor["componentType"]]), _WIDTHS[accessor["type"]], accessor["count"]
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    stride = view.get("byteStride", kind.itemsize * width)
    if count and accessor.get("byteOffset", 0) + stride * (count - 1) + kind.itemsize * width > view["byteLength"]:
        raise ValueError("an accessor reaches beyond its view")
    shape, strides = (count, width), (stride, kind.itemsize)
    values: NDArray[Any] = np.ndarray(shape, kind.newbyteorder("<"), binary, start, strides)
    return values.copy() if width > 1 else values[:, 0].copy()


def _unit_floats(values: NDArray[Any]) -> Floats:
    """Normalised integers as floats; floats as they are."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    return (values / np.iinfo(values.dtype).max).astype(np.float32)


def _weld(points: Floats, corners: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int32], NDArray[np.bool_]]:
    """One vertex for each place; triangles that lose their area by it, and second copies of a triangle, are dropped."""
    _, first, group = np.unique(points, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # keep the file's order
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    faces = rank[group.reshape(-1)][corners]
    a, b, c = faces.T
    kept = (a != b) & (b != c) & (c != a)
    _, once = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    unique = np.zeros(len(faces), bool)
    unique[once] = True
    kept &= unique
    return points[first[order]], faces[kept].astype(np.int32), kept


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _check_picture(image: bytes) -> None:
    """Raise ValueError for a picture that is damaged; Blender would show it as pink."""
    if image.startswith(b"\xff\xd8\xff"):
        return
    if not image.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("a picture that is neither PNG nor JPEG")
    offset, kind = 8, b""
    while kind != b"IEND":  # after it there may be padding
        length, kind = struct.unpack_from(">I4s", image, offset)
        (checksum,) = struct.unpack_from(">I", image, offset + 8 + length)
        if checksum != zlib.crc32(image[offset + 4 : offset + 8 + length]):
            raise ValueError("a damaged picture")
        offset += 12 + length


def _material(gltf: Json, binary: bytes, index: int) -> tuple[bytes, float, float]:
    """The base colour's picture, roughness and metallic."""
    surface = gltf["materials"][index].get("pbrMetallicRoughness", {})
    if "baseColorTexture" not in surface:
        raise ValueError("no base colour texture")
    source = gltf["textures"][surface["baseColorTexture"]["index"]]["source"]
    view = gltf["bufferViews"][gltf["images"][source]["bufferView"]]
    start = view.get("byteOffset", 0)
    image = binary[start : start + view["byteLength"]]
    _check_picture(image)
    return image, float(surface.get("roughnessFactor", 1.0)), float(surface.get("metallicFactor", 1.0))
