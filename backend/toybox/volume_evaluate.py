"""How good the whole shapes are: ``python -m backend.toybox.volume_evaluate [FOLDER] --out JSON --sheet PNG``.

The objects of ``view_evaluate``: each is shown to the model from one side; its shape, and what is seen of it from four
other sides, are compared with what is truly there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL  # pyright: ignore[reportPrivateImportUsage]
from numpy.typing import NDArray

from ..guidance import ReferencePicture
from ..guidance.model_folder import BUILT_IN_FOLDER, BUILT_IN_VIEW_FOLDER
from ..guidance.view_volume import FOLDER, LatentViewVolume, load
from ..picture import preview_image
from .report import Row, command, report
from .true_maps import degrees, true_maps
from .view_dataset import before_white
from .view_evaluate import Subject, subjects

Floats = NDArray[np.float32]


def foretold(folder: Path, one: Subject) -> LatentViewVolume:
    """What the model in ``folder`` knows of the object by its one picture."""
    vae: Any = AutoencoderKL.from_pretrained(BUILT_IN_FOLDER / "vae", torch_dtype=torch.float32)
    shown = [ReferencePicture(torch.from_numpy(one.reference).permute(2, 0, 1), one.camera)]
    return load(folder, vae, shown, torch.device("cpu"))


def errors(one: Subject, known: LatentViewVolume) -> tuple[dict[str, float], Floats]:
    """Of the shape and, means, of four views; and a strip of the picture and their depth and normals, true ones first.

    ``volume_iou`` of the shape; ``silhouette_iou`` of the masks; ``depth``, the mean absolute error where the object
    is, in radii; ``degrees`` between normals, mean.
    """
    rows: list[dict[str, float]] = []
    strip = [before_white(one.reference)]
    for i, side in enumerate(known.seen_from(one.cameras)):
        depth, normals = true_maps(one.solids, one.cameras[i : i + 1], len(one.reference))
        assert side.maps.normals is not None
        far, facing = side.maps.depth.numpy(), side.maps.normals.permute(1, 2, 0).numpy()
        there, found = np.isfinite(depth), side.mask.numpy() > 0.5
        rows.append(
            {
                "silhouette_iou": overlap(there, found),
                "depth": float(np.abs(far - depth)[there].mean()),
                "degrees": degrees(facing[there], normals[there]),
            }
        )
        own = np.where(found, far, np.nan), np.where(found[..., None], facing, 0)
        strip += [_shown(there, depth, normals), _shown(found, *own)]
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    whole = overlap(one.solids.volume(len(known.logits)), known.logits.numpy() > 0)
    return {"volume_iou": whole, **means}, np.concatenate(strip, 1)


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((a & b).sum() / (a | b).sum())


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
