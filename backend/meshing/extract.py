"""The whole way from a field to a textured mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..request import MeshSettings
from .bake import Baked, bake_albedo
from .clean import clean_surface
from .isosurface import FieldLike, OccupancyLike, extract_surface
from .mesh import Mesh, vertex_normals
from .outline import fit_outline
from .projection import PictureView
from .unwrap import unwrap

Report = Callable[[str, float], None]
"""Called with what is being done and the share of the whole extraction that is behind, in [0, 1]."""


@dataclass(frozen=True)
class Pictures:
    """Pictures of the object, and how much of a mesh is theirs."""

    views: tuple[PictureView, ...] = ()
    colours: float = 1.0
    """Share of the texture's colour, where they show the surface, in [0, 1]."""
    outline: float = 1.0
    """Share of the way from the surface's outline to that of their masks, in [0, 1]. Above 0, what they show and the
    surface lacks is made of the fog that stands there; sketches show too little for that."""


NO_PICTURES = Pictures()


def extract_mesh(
    field: FieldLike,
    occupancy: OccupancyLike | None,
    settings: MeshSettings,
    report: Report,
    pictures: Pictures = NO_PICTURES,
) -> Mesh:
    """The visible surface of a field as one closed, textured mesh; the same field always gives the same mesh.

    ``occupancy`` limits where the field is asked (None: the whole ball); ``settings`` give the grid's side, the number
    of triangles at most, and the texture's side in pixels. What ``pictures`` show of the object, the mesh shows.
    Raises DivergedError if the field is empty, fills the ball, or holds values that are not numbers.
    """
    report("Sampling the field", 0.0)
    surface = extract_surface(
        field,
        occupancy,
        settings.grid_resolution,
        lambda share: report("Sampling the field", 0.3 * share),
        [view for view in pictures.views if view.kind != "sketch" and pictures.outline > 0],
    )
    report("Cleaning the surface", 0.35)
    vertices, faces = clean_surface(surface, settings.faces)
    moved = fit_outline(vertices, faces, pictures.views, pictures.outline)
    report("Unwrapping the surface", 0.45)
    source, new_faces, uvs = unwrap(moved, faces, settings.texture_size)
    normals, moved_normals = vertex_normals(vertices, faces)[source], vertex_normals(moved, faces)[source]
    report("Baking the texture", 0.7)
    texture = bake_albedo(
        field,
        Baked(vertices[source], normals, new_faces, uvs, moved[source], moved_normals),
        settings.texture_size,
        surface.spacing,
        lambda share: report("Baking the texture", 0.7 + 0.3 * share),
        pictures.views,
        pictures.colours,
    )
    return Mesh(moved[source], new_faces, moved_normals, uvs, texture)
