"""What the judge and the truth say of one mesh."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backend.cameras import CameraBatch, off_front, orbit_cameras
from backend.meshing import render_mesh
from backend.meshing.mesh import Mesh
from backend.rendering import linear_to_srgb
from backend.toybox.captions import VIEWS
from backend.toybox.dataset import BARE_ALBEDO, COLOUR_NAMES, KIND_NAMES
from backend.toybox.judge import Judge
from backend.toybox.model import IMAGE_SIZE
from backend.toybox.world import Look, make_object

from ..truth import shape_score, true_mesh, true_surface
from .subjects import LOOKS

AZIMUTHS = np.arange(0.0, 360.0, 10.0)
ELEVATION, DISTANCE, FIELD_OF_VIEW = 15.0, 3.0, 40.0
BACKGROUND = 0.6
NOT_FRONT = 75.0
"""From this turn on, in degrees, no true object shows its front."""


def cameras() -> CameraBatch:
    """The 36 views."""
    return orbit_cameras(AZIMUTHS, ELEVATION, DISTANCE, FIELD_OF_VIEW)


def views(mesh: Mesh) -> NDArray[np.float32]:
    """[36, S, S, 4], sRGB with straight alpha."""
    return render_mesh(mesh, cameras(), IMAGE_SIZE, IMAGE_SIZE)


def uncoloured(mesh: Mesh) -> Mesh:
    """The same shape in one grey."""
    grey = round(float(linear_to_srgb(torch.tensor(BARE_ALBEDO))) * 255)
    return dataclasses.replace(mesh, texture=np.full((4, 4, 3), grey, np.uint8))


def front_where_none_is(front: NDArray[np.floating]) -> float:
    """The largest mean over three neighbouring views of the judge's P(front) [36], away from the true front."""
    smoothed = (np.roll(front, 1) + front + np.roll(front, -1)) / 3
    turn = off_front(AZIMUTHS)
    return float(smoothed[turn >= NOT_FRONT].max())


def judge_mesh(mesh: Mesh, seen: NDArray[np.float32], look: Look, judge: Judge) -> dict[str, Any]:
    """Janus or not, and in how many of ``seen``, the mesh's :func:`views`, the prompt is found among all prompts."""
    coloured, shape = _for_judge(seen), _for_judge(views(uncoloured(mesh)))
    verdict, bare = judge.verdict(coloured), judge.verdict(shape)
    kinds = [KIND_NAMES.index(other.kind) for other in LOOKS]
    colours = [COLOUR_NAMES.index(other.colour or "") for other in LOOKS]
    told = (verdict.kind[:, kinds].log() + verdict.colour[:, colours].log()).argmax(1)
    shaped = bare.kind[:, kinds].argmax(1)  # two prompts of one kind cannot be told apart by shape
    elsewhere = front_where_none_is(verdict.view[:, VIEWS.index("front")].numpy())
    return {
        "front_elsewhere": elsewhere,
        "janus": elsewhere > 0.5,
        "r_precision_textured": float((told == LOOKS.index(look)).float().mean()),
        "r_precision_textureless": float(np.mean([LOOKS[i].kind == look.kind for i in shaped.tolist()])),
    }


def measure(mesh: Mesh, seen: NDArray[np.float32], look: Look, judge: Judge) -> dict[str, Any]:
    """Everything that is measured of one mesh, ``seen`` as its :func:`views` show it."""
    solids = make_object(look)
    surface = true_surface(solids)
    return {
        **judge_mesh(mesh, seen, look, judge),
        **shape_score(mesh, solids, surface),
        "colour_error": colour_error(seen, views(true_mesh(solids, surface))),
    }


def colour_error(ours: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    """Median CIEDE2000 difference of :func:`views` of two meshes, where both are seen."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    both = (ours[..., 3] > 0.99) & (true[..., 3] > 0.99)
    if not both.any():
        return float("nan")
    difference = deltaE_ciede2000(rgb2lab(ours[both][:, :3]), rgb2lab(true[both][:, :3]))
    return float(np.median(difference))


def _for_judge(rgba: NDArray[np.float32]) -> torch.Tensor:
    """[36, 3, S, S] in [−1, 1], on a grey."""
    alpha = rgba[..., 3:]
    image = rgba[..., :3] * alpha + BACKGROUND * (1 - alpha)
    return torch.from_numpy(image).permute(0, 3, 1, 2).contiguous() * 2 - 1
