"""Between two Toybox folders: ``python -m backend.toybox.mix FIRST SECOND --share 0.5 --out FOLDER``.

The mean of the weights of a model and of one that was trained further from it is a model between the two (model soups,
arXiv 2203.05482): how strong a bias is, is set so without training.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from ..guidance.camera_projection import SUBFOLDER

_TRAINED = ("unet", "text_encoder", SUBFOLDER)
"""Parts that :mod:`.train` trains further; the rest is the first folder's."""


def mix(first: Path, second: Path, share: float, out: Path) -> None:
    """Write ``out``: ``first`` with ``share`` in [0, 1] of ``second``. Raises ValueError where they do not match."""
    if not 0 <= share <= 1:
        raise ValueError(f"The share must be from 0 to 1, not {share}.")
    if out.exists():
        raise ValueError(f"{out} is there already; choose another folder.")
    pairs = [
        (file, second / file.relative_to(first)) for part in _TRAINED for file in (first / part).glob("*.safetensors")
    ]
    if not pairs:
        raise ValueError(f"{first} has no weights of Toybox.")
    mixed = {}
    for file, other in pairs:
        ours, theirs = load_file(file), load_file(other) if other.is_file() else {}
        if {name: value.shape for name, value in ours.items()} != {name: value.shape for name, value in theirs.items()}:
            raise ValueError(f"{other} is not another training of {file}.")
        mixed[file.relative_to(first)] = {
            name: ((1 - share) * value.float() + share * theirs[name].float()).to(value.dtype)
            for name, value in ours.items()
        }
    shutil.copytree(first, out)
    for name, weights in mixed.items():
        save_file(weights, out / name, metadata={"format": "pt"})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the second, 0 to 1")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        mix(arguments.first, arguments.second, arguments.share, arguments.out)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
