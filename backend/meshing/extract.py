"""The whole way from a field to a textured mesh."""

from __future__ import annotations

from collections.abc import Callable

from ..request import MeshSettings
from .bake import bake_albedo
from .clean import clean_surface
from .isosurface import FieldLike, OccupancyLike, extract_surface
from .mesh import Mesh, vertex_normals
from .unwrap import unwrap

Report = Callable[[str, float], None]
"""Called with what is being done and the share of the whole extraction that is behind, in [0, 1]."""


def extract_mesh(field: FieldLike, occupancy: OccupancyLike | None, settings: MeshSettings, report: Report) -> Mesh:
    """The visible surface of a field as one closed, textured mesh; the same field always gives the same mesh.

    ``occupancy`` limits where the field is asked (None: the whole ball); ``settings`` give the grid's side, the number
    of triangles at most, and the texture's side in pixels.
    Raises DivergedError if the field is empty, fills the ball, or holds values that are not numbers.
    """
    report("Sampling the field", 0.0)
    surface = extract_surface(
        field, occupancy, settings.grid_resolution, lambda share: report("Sampling the field", 0.3 * share)
    )
    report("Cleaning the surface", 0.35)
    vertices, faces = clean_surface(surface, settings.faces)
    report("Unwrapping the surface", 0.45)
    source, new_faces, uvs = unwrap(vertices, faces, settings.texture_size)
    normals = vertex_normals(vertices, faces)[source]
    vertices = vertices[source]
    report("Baking the texture", 0.7)
    texture = bake_albedo(
        field,
        vertices,
        new_faces,
        uvs,
        normals,
        settings.texture_size,
        surface.spacing,
        lambda share: report("Baking the texture", 0.7 + 0.3 * share),
    )
    return Mesh(vertices, new_faces, normals, uvs, texture)
