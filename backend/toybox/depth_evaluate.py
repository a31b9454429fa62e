"""How good the depth model is: ``python -m backend.toybox.depth_evaluate [FOLDER] --out JSON --sheet PNG``.

Objects that training never showed, of known kinds, of no kind, and of kinds never seen: each from a random place before
it, and compared with what is truly there.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..guidance import load_depth_model
from ..guidance.interface import DepthModel
from ..picture import preview_image
from ..request import BUILT_IN_DEPTH_MODEL
from .report import Row, command, report
from .true_maps import degrees, true_maps
from .view_dataset import before_white
from .view_evaluate import Subject, subjects

Floats = NDArray[np.float32]


def errors(one: Subject, model: DepthModel) -> tuple[dict[str, float], Floats]:
    """What the model is off by, and a strip of picture, depth and normals, true ones first.

    ``correlation`` of the depths; ``depth``, the mean absolute error about the mean one, in radii; ``degrees`` between
    normals, mean.
    """
    shown = torch.from_numpy(before_white(one.reference)).permute(2, 0, 1)
    seen, (depth, normals) = model.seen(shown), true_maps(one.solids, one.camera, len(one.reference))
    assert seen.normals is not None
    far, facing = seen.depth.numpy(), seen.normals.permute(1, 2, 0).numpy()
    known = np.isfinite(depth)
    off = (far - depth)[known]
    figures = {
        "correlation": float(np.corrcoef(far[known], depth[known])[0, 1]),
        "depth": float(np.abs(off - off.mean()).mean()),
        "degrees": degrees(facing[known], normals[known]),
    }
    own = np.where(known, far - off.mean(), np.nan), np.where(known[..., None], facing, 0)
    true, made = (
        preview_image(one.reference, *(np.asarray(each, np.float32) for each in maps))
        for maps in ((depth, normals), own)
    )
    return figures, np.concatenate((true, made[:, len(depth) :]), 1)


def evaluate(model: DepthModel, rounds: int) -> list[Row]:
    """Every object's figures and strip."""
    return [(one.group, *errors(one, model)) for one in subjects(rounds)]


def main() -> None:
    """The command line."""
    arguments = command(__doc__, BUILT_IN_DEPTH_MODEL).parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    report(evaluate(load_depth_model(arguments.folder, device), arguments.rounds), arguments, zoom=2)


if __name__ == "__main__":
    main()
