"""A small result by hand: a box with a nose toward the front, as binary glTF, split along its seams. stdlib only."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

NOSE = (0.1, -0.9, 0.2)
"""Rig space: out of the front face (−Y), a little right and up, so that every mistaken axis shows."""
HALF = (0.3, 0.5, 0.4)
"""Half sizes of the box."""


def triangles() -> list[tuple[tuple[float, float, float], ...]]:
    """The surface in rig space (+Z up, front −Y), counter-clockwise from outside; the front rises to the nose."""
    x, y, z = HALF
    a, b, c, d = (-x, -y, -z), (x, -y, -z), (x, -y, z), (-x, -y, z)
    e, f, g, h = (-x, y, -z), (x, y, -z), (x, y, z), (-x, y, z)
    quads = [(b, f, g, c), (f, e, h, g), (e, a, d, h), (d, c, g, h), (e, f, b, a)]
    front = [(a, b, NOSE), (b, c, NOSE), (c, d, NOSE), (d, a, NOSE)]
    return front + [t for p, q, r, s in quads for t in ((p, q, r), (p, r, s))]


def png(size: int) -> bytes:
    """A square picture: red, its top row green."""
    rows = [b"\0" + (b"\x10\xc0\x10" if row == 0 else b"\xc0\x10\x10") * size for row in range(size)]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"".join(rows))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def glb(texture_size: int = 64, node: dict[str, Any] | None = None) -> bytes:
    """The box as .glb, +Y up; every triangle has vertices of its own. ``node`` may hold a transform."""
    points, normals, uvs = [], [], []
    for triangle in triangles():
        p, q, r = triangle
        u, v = ([q[i] - p[i] for i in range(3)], [r[i] - p[i] for i in range(3)])
        n = (u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0])
        length = sum(each * each for each in n) ** 0.5
        for corner, uv in zip(triangle, ((0.1, 0.2), (0.9, 0.2), (0.5, 0.8)), strict=True):
            points.append((corner[0], corner[2], -corner[1]))
            normals.append((n[0] / length, n[2] / length, -n[1] / length))
            uvs.append(uv)
    blobs = [
        struct.pack(f"<{3 * len(points)}f", *(c for p in points for c in p)),
        struct.pack(f"<{3 * len(points)}f", *(c for p in normals for c in p)),
        struct.pack(f"<{2 * len(points)}f", *(c for p in uvs for c in p)),
        struct.pack(f"<{len(points)}H", *range(len(points))),
        png(texture_size) + b"\0\0\0",  # as writers pad it
    ]
    views, binary = [], b""
    for blob in blobs:
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(blob)})
        binary += blob + b"\0" * (-len(blob) % 4)
    kinds = [(5126, "VEC3"), (5126, "VEC3"), (5126, "VEC2"), (5123, "SCALAR")]
    accessors = [
        {"bufferView": i, "componentType": kind, "type": shape, "count": len(points)}
        for i, (kind, shape) in enumerate(kinds)
    ]
    gltf = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"children": [1]}, {"mesh": 0, **(node or {})}],
        "meshes": [
            {
                "primitives": [
                    {
                        "attributes": {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2},
                        "indices": 3,
                        "material": 0,
                    }
                ]
            }
        ],
        "materials": [
            {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 0.8}}
        ],
        "textures": [{"source": 0}],
        "images": [{"bufferView": 4, "mimeType": "image/png"}],
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
        "accessors": accessors,
    }
    text = json.dumps(gltf).encode()
    text += b" " * (-len(text) % 4)
    size = 12 + 8 + len(text) + 8 + len(binary)
    head = struct.pack("<4sII", b"glTF", 2, size) + struct.pack("<I4s", len(text), b"JSON") + text
    return head + struct.pack("<I4s", len(binary), b"BIN\0") + binary


def write_result(folder: Path, request: dict[str, Any], texture_size: int = 64) -> None:
    """A finished job's folder, as far as Blender's side reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mesh.glb").write_bytes(glb(texture_size))
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    (folder / "metrics.json").write_text('{"seconds": 1.5}', encoding="utf-8")
