"""What evaluations print, write and draw."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_ROWS = 8
"""Objects on the sheet."""

Floats = NDArray[np.float32]
Row = tuple[str, dict[str, float], Floats]
"""An object's group, its figures, and a strip of pictures."""


def command(description: str | None, default: Any) -> argparse.ArgumentParser:
    """Of an evaluation: the model's folder, --rounds, --out and --sheet."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=type(default), default=default, help="of a training; the built-in")
    parser.add_argument("--rounds", type=int, default=4, help="objects of each kind")
    parser.add_argument("--out", type=Path, help="where to write the figures")
    parser.add_argument("--sheet", type=Path, help="where to draw some objects")
    return parser


def means(rows: list[Row]) -> dict[str, Any]:
    """By group."""
    groups = {group: [figures for name, figures, _ in rows if name == group] for group, _, _ in rows}
    return {
        group: {"objects": len(found), **{key: round(float(np.mean([f[key] for f in found])), 4) for key in found[0]}}
        for group, found in groups.items()
    }


def report(rows: list[Row], arguments: argparse.Namespace, zoom: int = 1) -> None:
    """Print the means, and write them and some of the first round's strips where the command line asks for them."""
    text = json.dumps(means(rows), indent=2) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    if arguments.sheet:
        once = [strip for _, _, strip in rows[: len(rows) // arguments.rounds]]  # a round has all kinds
        chosen = once[:: max(1, len(once) // _ROWS)]
        image = Image.fromarray(np.rint(np.clip(np.concatenate(chosen), 0, 1) * 255).astype(np.uint8))
        image.resize((zoom * image.width, zoom * image.height), Image.Resampling.NEAREST).save(arguments.sheet)
