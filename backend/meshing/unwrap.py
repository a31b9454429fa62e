"""UV unwrap by xatlas: charts flattened by least-squares conformal maps, packed into the unit square."""

from __future__ import annotations

import numpy as np
import xatlas

from ..errors import DivergedError
from .mesh import Floats, Integers

PADDING = 4
"""Empty texels around each chart at the texture's own size; nearest fill from both sides leaves two to each."""


def unwrap(vertices: Floats, faces: Integers, texture_size: int) -> tuple[Integers, Integers, Floats]:
    """Cut a mesh into charts.

    Returns [V'] the vertex each new one copies, [F, 3] faces of new vertices (same triangles, same order), and [V', 2]
    UVs in [0, 1], origin at the bottom left. The same mesh always gives the same charts.
    Raises DivergedError if the mesh cannot be unwrapped at all.
    """
    atlas = xatlas.Atlas()
    atlas.add_mesh(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.uint32))
    charts = xatlas.ChartOptions()
    charts.max_iterations = 1
    packing = xatlas.PackOptions()
    packing.resolution = texture_size
    packing.padding = PADDING
    packing.bilinear = True
    packing.bruteForce = False
    atlas.generate(charts, packing)
    if atlas.atlas_count != 1:
        raise DivergedError("The surface could not be unwrapped.", "Choose fewer faces or a larger texture.")
    source, new_faces, uvs = atlas[0]
    uvs = np.clip(uvs.astype(np.float32), 0.0, 1.0)
    return source.astype(np.int32), new_faces.astype(np.int32), uvs
