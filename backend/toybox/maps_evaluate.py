"""How good the maps of hidden sides are: ``python -m backend.toybox.maps_evaluate [FOLDER] --out JSON --sheet PNG``.

The objects of ``view_evaluate``: each is shown to the model from one side and foretold from four others, and compared
with what is truly there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL  # pyright: ignore[reportPrivateImportUsage]
from numpy.typing import NDArray

from ..guidance import ReferencePicture
from ..guidance.interface import Side
from ..guidance.model_folder import BUILT_IN_FOLDER, BUILT_IN_VIEW_FOLDER
from ..guidance.view_maps import FOLDER, load
from ..picture import preview_image
from .report import Row, command, report
from .true_maps import degrees, true_maps
from .view_dataset import before_white
from .view_evaluate import Subject, subjects

Floats = NDArray[np.float32]


def foretold(folder: Path, one: Subject) -> list[Side]:
    """What the model in ``folder`` sees from the object's four cameras."""
    vae: Any = AutoencoderKL.from_pretrained(BUILT_IN_FOLDER / "vae", torch_dtype=torch.float32)
    shown = [ReferencePicture(torch.from_numpy(one.reference).permute(2, 0, 1), one.camera)]
    return load(folder, vae, shown, torch.device("cpu")).seen_from(one.cameras)


def errors(one: Subject, sides: list[Side]) -> tuple[dict[str, float], Floats]:
    """Means over the views, and a strip of the picture and every view's depth and normals, true ones first.

    ``silhouette_iou`` of the masks; ``depth``, the mean absolute error where the object is, in radii; ``degrees``
    between normals, mean.
    """
    rows: list[dict[str, float]] = []
    strip = [before_white(one.reference)]
    for i, side in enumerate(sides):
        depth, normals = true_maps(one.solids, one.cameras[i : i + 1], len(one.reference))
        assert side.maps.normals is not None
        far, facing = side.maps.depth.numpy(), side.maps.normals.permute(1, 2, 0).numpy()
        known, found = np.isfinite(depth), side.mask.numpy() > 0.5
        rows.append(
            {
                "silhouette_iou": float((known & found).sum() / (known | found).sum()),
                "depth": float(np.abs(far - depth)[known].mean()),
                "degrees": degrees(facing[known], normals[known]),
            }
        )
        own = np.where(found, far, np.nan), np.where(found[..., None], facing, 0)
        strip += [_shown(known, depth, normals), _shown(found, *own)]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}, np.concatenate(strip, 1)


def _shown(mask: NDArray[np.bool_], depth: NDArray[Any], normals: NDArray[Any]) -> Floats:
    """Depth and normals side by side."""
    rgba = np.concatenate((np.zeros((*mask.shape, 3)), mask[..., None]), -1).astype(np.float32)
    image = preview_image(rgba, np.asarray(depth, np.float32), np.asarray(normals, np.float32))
    return image[:, len(mask) :]


def evaluate(folder: Path, rounds: int) -> list[Row]:
    """Every object's figures and strip."""
    return [(one.group, *errors(one, foretold(folder, one))) for one in subjects(rounds)]


def main() -> None:
    """The command line."""
    arguments = command(__doc__, BUILT_IN_VIEW_FOLDER / FOLDER).parse_args()
    report(evaluate(arguments.folder, arguments.rounds), arguments)


if __name__ == "__main__":
    main()
