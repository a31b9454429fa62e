"""Meshes to and from files. Files are Y-up as glTF demands and Blender's importers expect; meshes in memory are Z-up.

x, y, z of the rig become x, z, −y of the file, so that an imported object stands along +Z with its front toward −Y.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from ..errors import OutputError
from ..files import write_atomically
from .mesh import Bytes, Floats, Mesh, vertex_normals, weld

NAME = "dreamlathe"
ROUGHNESS = 0.8


def to_y_up(vectors: Floats) -> Floats:
    """Rig axes [N, 3] to a file's: x, z, −y."""
    return np.stack([vectors[:, 0], vectors[:, 2], -vectors[:, 1]], axis=1)


def to_z_up(vectors: Floats) -> Floats:
    """The inverse of :func:`to_y_up`."""
    return np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], axis=1)


def write_glb(mesh: Mesh, path: str | Path) -> None:
    """Binary glTF 2.0: one node, one mesh, one opaque material with the texture embedded as PNG.

    Raises OutputError if the path cannot be written; never leaves half a file.
    """
    material = PBRMaterial(
        name=NAME,
        baseColorTexture=Image.fromarray(mesh.texture),
        baseColorFactor=[255, 255, 255, 255],
        metallicFactor=0.0,
        roughnessFactor=ROUGHNESS,
        alphaMode="OPAQUE",
        doubleSided=False,
    )
    geometry = trimesh.Trimesh(
        vertices=to_y_up(mesh.vertices),
        faces=mesh.faces,
        vertex_normals=to_y_up(mesh.normals),
        visual=TextureVisuals(uv=mesh.uvs, material=material),
        process=False,
    )
    scene = trimesh.Scene(base_frame="scene")
    scene.add_geometry(geometry, node_name=NAME, geom_name=NAME)
    data: Any = scene.export(file_type="glb", include_normals=True)
    write_atomically(Path(path), data)


def write_obj(mesh: Mesh, path: str | Path) -> None:
    """Wavefront OBJ with its material (.mtl) and texture (.png) beside it, named like it; Y-up, front toward +Z.

    The material is opaque: ``d 1`` and no ``Tr``, which readers understand in opposite ways. Positions along texture
    seams are written once, so that the surface is whole after import.
    Raises OutputError if the path cannot be written; the OBJ is written last, so that it never names missing files.
    """
    path = Path(path)
    material, texture = path.with_suffix(".mtl"), path.with_suffix(".png")
    write_atomically(texture, png_bytes(mesh.texture))
    lines = [f"newmtl {NAME}", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 1", f"map_Kd {texture.name}", ""]
    write_atomically(material, "\n".join(lines).encode())
    points, corners = weld(mesh)
    indices = np.stack([corners, mesh.faces, corners], axis=2).reshape(-1, 9) + 1
    normals = np.empty_like(points)
    normals[corners] = mesh.normals[mesh.faces]
    parts = [
        "# Y-up, front toward +Z (Blender's import defaults: forward -Z, up Y)",
        f"mtllib {material.name}",
        f"o {NAME}",
        _rows("v %.6f %.6f %.6f", to_y_up(points)),
        _rows("vt %.6f %.6f", mesh.uvs),
        _rows("vn %.5f %.5f %.5f", to_y_up(normals)),
        f"usemtl {NAME}",
        "s 1",
        _rows("f %d/%d/%d %d/%d/%d %d/%d/%d", indices),
        "",
    ]
    write_atomically(path, "\n".join(parts).encode())


def read_mesh(path: str | Path) -> Mesh:
    """A mesh from a GLB, OBJ or any other format trimesh reads, in rig axes (the file is taken to be Y-up).

    Several parts become one, with the first one's texture. Without normals they are computed; without UVs they are
    zero; without a texture it is one texel of the material's colour (white if there is none).
    Raises OutputError if the file is missing or is no mesh.
    """
    try:
        scene: Any = trimesh.load_scene(path, process=False)
        parts = [part for node in scene.graph.nodes_geometry if (part := _part(scene, node)) is not None]
        if not parts:
            raise ValueError("it has no faces")
    except Exception as error:  # noqa: BLE001 - trimesh raises whatever its parsers do
        raise OutputError(f"{path} cannot be read as a mesh ({error}).", "Choose a GLB or OBJ file.") from None
    offsets = np.cumsum([0] + [len(part.vertices) for part in parts])
    faces = [part.faces + offset for part, offset in zip(parts, offsets[:-1], strict=True)]
    return Mesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate(faces).astype(np.int32),
        np.concatenate([part.normals for part in parts]),
        np.concatenate([part.uvs for part in parts]),
        parts[0].texture,
    )


def _part(scene: Any, node: str) -> Mesh | None:
    """One of a trimesh scene's meshes, placed; None for what is no mesh."""
    matrix, name = scene.graph[node]
    geometry = scene.geometry[name]
    if not isinstance(geometry, trimesh.Trimesh) or not len(geometry.faces):
        return None
    geometry = geometry.copy(include_cache=True).apply_transform(matrix)
    vertices = to_z_up(np.asarray(geometry.vertices, np.float32))
    faces = np.asarray(geometry.faces, np.int32)
    # Asking trimesh for normals would compute them, and the file's are only in its cache.
    if "vertex_normals" in geometry._cache:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        normals = to_z_up(np.asarray(geometry.vertex_normals, np.float32))
    else:
        normals = vertex_normals(vertices, faces)
    visual: Any = geometry.visual
    uvs = getattr(visual, "uv", None)
    uvs = np.zeros((len(vertices), 2), np.float32) if uvs is None else np.asarray(uvs, np.float32)
    return Mesh(vertices, faces, normals, uvs, _texture_of(visual))


def png_bytes(image: Bytes) -> bytes:
    """An image [H, W, 3 or 4] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _texture_of(visual: Any) -> Bytes:
    """The base colour picture of trimesh's visual; one texel of the main colour if there is none."""
    material = getattr(visual, "material", None)
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if picture is not None:
        return np.asarray(picture.convert("RGB"), np.uint8)
    colour = getattr(material if material is not None else visual, "main_color", None)
    row = np.full(3, 255, np.uint8) if colour is None else np.asarray(colour, np.uint8)[:3]
    return row.reshape(1, 1, 3)


def _rows(template: str, rows: np.ndarray[Any, Any]) -> str:
    """Every row printed with the template, a line each."""
    return "\n".join([template] * len(rows)) % tuple(rows.ravel().tolist())
