"""How good the depth model is: ``python -m backend.toybox.depth_evaluate [FOLDER] --out JSON --sheet PNG``.

Objects that training never showed, of known kinds, of no kind, and of kinds never seen: each from a random place before
it, and compared with what is truly there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..guidance import load_depth_model
from ..guidance.interface import DepthModel
from ..picture import preview_image
from ..request import BUILT_IN_DEPTH_MODEL
from .raycast import render_maps
from .view_dataset import before_white
from .view_evaluate import Subject, subjects

_ROWS = 8
"""Objects on the sheet."""

Floats = NDArray[np.float32]


def true_maps(one: Subject) -> tuple[Floats, Floats]:
    """Depth [S, S], NaN where nothing is, and normals [S, S, 3] of the picture."""
    camera, size = one.camera, len(one.reference)
    (fx, fy), (cx, cy) = camera.focal[0].tolist(), camera.center[0].tolist()
    return render_maps(one.solids, camera.camera_to_world[0], (fx, fy), (cx, cy), size)


def errors(one: Subject, model: DepthModel) -> tuple[dict[str, float], Floats]:
    """What the model is off by, and a strip of picture, depth and normals, true ones first.

    ``correlation`` of the depths; ``depth``, the mean absolute error about the mean one, in radii; ``degrees`` between
    normals, mean.
    """
    shown = torch.from_numpy(before_white(one.reference)).permute(2, 0, 1)
    seen, (depth, normals) = model.seen(shown), true_maps(one)
    assert seen.normals is not None
    far, facing = seen.depth.numpy(), seen.normals.permute(1, 2, 0).numpy()
    known = np.isfinite(depth)
    off = (far - depth)[known]
    cosine = np.clip((facing * normals).sum(-1)[known], -1, 1)
    figures = {
        "correlation": float(np.corrcoef(far[known], depth[known])[0, 1]),
        "depth": float(np.abs(off - off.mean()).mean()),
        "degrees": float(np.degrees(np.arccos(cosine)).mean()),
    }
    own = np.where(known, far - off.mean(), np.nan), np.where(known[..., None], facing, 0)
    true, made = (
        preview_image(one.reference, *(np.asarray(each, np.float32) for each in maps))
        for maps in ((depth, normals), own)
    )
    return figures, np.concatenate((true, made[:, len(depth) :]), 1)


def evaluate(model: DepthModel, rounds: int) -> tuple[dict[str, Any], list[Floats]]:
    """Means by group, and a strip of each object."""
    rows = [(one.group, *errors(one, model)) for one in subjects(rounds)]
    groups = {group: [figures for name, figures, _ in rows if name == group] for group, _, _ in rows}
    means = {
        group: {"objects": len(found), **{key: round(float(np.mean([f[key] for f in found])), 4) for key in found[0]}}
        for group, found in groups.items()
    }
    return means, [strip for _, _, strip in rows]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=BUILT_IN_DEPTH_MODEL, help="of a training; the built-in one")
    parser.add_argument("--rounds", type=int, default=4, help="objects of each kind")
    parser.add_argument("--out", type=Path, help="where to write the figures")
    parser.add_argument("--sheet", type=Path, help="where to draw some objects")
    arguments = parser.parse_args()
    model = load_depth_model(arguments.folder, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    means, strips = evaluate(model, arguments.rounds)
    text = json.dumps(means, indent=2) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    if arguments.sheet:
        once = strips[: len(strips) // arguments.rounds]  # a round has all kinds
        chosen = once[:: len(once) // _ROWS]
        image = Image.fromarray(np.rint(np.clip(np.concatenate(chosen), 0, 1) * 255).astype(np.uint8))
        image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(arguments.sheet)


if __name__ == "__main__":
    main()
