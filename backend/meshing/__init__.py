"""From a field to a mesh on disk: isosurface, cleaning, unwrap, bake, files, pictures, and measures of shape."""

from __future__ import annotations

from .export import read_mesh, write_glb, write_obj
from .extract import Pictures, extract_mesh
from .mesh import Mesh
from .metrics import chamfer_distance, sample_surface, volume_iou
from .projection import PictureKind, PictureView
from .rasterize import render_mesh
from .turntable import write_thumbnail, write_turntable
from .voxelize import voxelize

__all__ = [
    "Mesh",
    "PictureKind",
    "PictureView",
    "Pictures",
    "chamfer_distance",
    "extract_mesh",
    "read_mesh",
    "render_mesh",
    "sample_surface",
    "volume_iou",
    "voxelize",
    "write_glb",
    "write_obj",
    "write_thumbnail",
    "write_turntable",
]
