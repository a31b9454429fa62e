"""How near one shape comes to the truth, as registered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from backend.cameras import CameraBatch, orbit_cameras
from backend.meshing import render_mesh, sample_surface, volume_iou, voxelize
from backend.meshing.mesh import Mesh
from backend.toybox.view_dataset import DISTANCE, FIELD_OF_VIEW, before_white

from ..truth import RESOLUTION, Surface, true_mesh, true_surface
from .baselines import Made, cell_centers
from .subjects import Subject

VIEWS = 16
ELEVATIONS = (5.0, 40.0, 20.0, 55.0)
"""Of the unseen views, in turn; their azimuths are even, the reference's in the middle between two."""
VIEW_SIZE = 128
POINTS, ASKED = 100_000, 20_000
"""On each surface, so many that their spacing hardly counts (0.004 between two draws of one); and how many of them are
asked for their distance to the other surface."""
SHOWN = (0, 4, 8, 12)
"""Views in the contact sheet."""

Floats = NDArray[np.float32]


def unseen_views(azimuth: float) -> CameraBatch:
    """The 16 cameras around a reference at ``azimuth``."""
    steps = np.arange(VIEWS)
    return orbit_cameras(azimuth + (steps + 0.5) * 360 / VIEWS, np.resize(ELEVATIONS, VIEWS), DISTANCE, FIELD_OF_VIEW)


def photographed(mesh: Mesh, cameras: CameraBatch, *, lit: bool = True) -> Floats:
    """[B, S, S, 3] before white."""
    return before_white(render_mesh(mesh, cameras, VIEW_SIZE, VIEW_SIZE, lit=lit))


def smaller(image: Floats) -> Floats:
    """``image`` [k·S, k·S, 3] at the size S of the views, each pixel the mean of k × k."""
    block = len(image) // VIEW_SIZE
    return image.reshape(VIEW_SIZE, block, VIEW_SIZE, block, 3).mean((1, 3))


class Truth:
    """All that is measured against, of one object."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.surface = true_surface(subject.solids)
        self.cells = subject.solids.volume(RESOLUTION)
        self.mesh = true_mesh(subject.solids, self.surface)
        self.reach = reach(self.surface)
        """The object's radius: Chamfer distances are those of the object scaled to the unit ball."""
        self.side = float(np.ptp(self.surface[0], axis=0).max())
        """The longest side of the object's box, which SyncDreamer's evaluation (arXiv 2309.03453) makes 1."""
        self.behind = (cell_centers(RESOLUTION) @ subject.camera.position[0] < 0).reshape(self.cells.shape)
        """The half of the cube that is away from the reference camera."""
        self.views = photographed(self.mesh, unseen_views(subject.pose[0]))
        self.front = smaller(before_white(subject.picture[None])[0])
        """The picture itself, with its light in it: that is what is to be matched."""

    def score(self, made: Made) -> tuple[dict[str, float], Floats]:
        """Figures, and the unseen views [16, S, S, 3]."""
        rng = np.random.default_rng(0)
        ours = sample_surface(made.mesh.vertices, made.mesh.faces, POINTS, rng)
        true = sample_surface(*self.surface, POINTS, rng)
        views = photographed(made.mesh, unseen_views(self.subject.pose[0]))
        distance = surface_distance(ours, true)
        figures = {
            "iou": volume_iou(made.cells, self.cells),
            "iou_back_half": volume_iou(made.cells & self.behind, self.cells & self.behind),
            "chamfer": distance / self.reach,
            "chamfer_by_side": distance / self.side,
            "psnr": float(np.mean([psnr(a, b) for a, b in zip(views, self.views, strict=True)])),
            "ssim": float(np.mean([ssim(a, b) for a, b in zip(views, self.views, strict=True)])),
            "reference_psnr": psnr(photographed(made.mesh, self.subject.camera, lit=False)[0], self.front),
        }
        return figures, views

    def control(self) -> dict[str, float]:
        """What the true mesh itself scores: 1 and 0, but for the measures' own coarseness."""
        cells = made_of(self.mesh).cells
        ours, true = (sample_surface(*self.surface, POINTS, np.random.default_rng(seed)) for seed in (0, 1))
        return {
            "iou": round(volume_iou(cells, self.cells), 5),
            "chamfer": round(surface_distance(ours, true) / self.reach, 5),
        }


def made_of(mesh: Mesh) -> Made:
    """A mesh to measure."""
    return Made(voxelize(mesh.vertices, mesh.faces, RESOLUTION), mesh)


def reach(surface: Surface) -> float:
    """The radius of the ball around the middle that an object fills."""
    return float(np.linalg.norm(surface[0], axis=1).max())


def surface_distance(a: Floats, b: Floats) -> float:
    """Chamfer distance (as :func:`backend.meshing.chamfer_distance`) of two surfaces' random points [POINTS, 3]."""
    there = np.asarray(KDTree(b).query(a[:ASKED])[0], np.float64)
    back = np.asarray(KDTree(a).query(b[:ASKED])[0], np.float64)
    return float(0.5 * (there.mean() + back.mean()))


def psnr(a: Floats, b: Floats) -> float:
    """In dB, at most 60: equal pictures have no largest value."""
    error = float(((a.astype(np.float64) - b) ** 2).mean())
    return min(60.0, -10 * float(np.log10(max(error, 1e-12))))


def ssim(a: Floats, b: Floats) -> float:
    """Structural similarity (Wang et al. 2004) of two pictures [S, S, 3]."""
    from skimage.metrics import structural_similarity

    return float(np.asarray(structural_similarity(a, b, channel_axis=2, data_range=1.0), np.float64))
