"""The table, the JSON file and the contact sheet."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from backend.toybox.captions import caption
from backend.toybox.view_dataset import before_white
from backend.toybox.world import Look

from .subjects import LOOKS, Asset, has_face

SHEET_AZIMUTHS = (0, 90, 180, 270)
TRUE = "true"
TILE = 64


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The means over one variant's assets, None of none; shares are fractions."""

    def mean(key: str, of: list[dict[str, Any]]) -> float | None:
        return round(statistics.fmean(row[key] for row in of), 4) if of else None

    def by_kind(key: str) -> dict[str, float | None]:
        kinds = sorted({row["kind"] for row in rows})
        return {kind: mean(key, [row for row in rows if row["kind"] == kind]) for kind in kinds}

    faced = [row for row in rows if row["face"]]
    return {
        "assets": len(rows),
        "janus_rate": mean("janus", faced),
        "janus_rate_without_face": mean("janus", [row for row in rows if not row["face"]]),
        "iou_mean": mean("iou", rows),
        "iou_by_kind": by_kind("iou"),
        "chamfer_mean": mean("chamfer", rows),
        "chamfer_by_kind": by_kind("chamfer"),
        "r_precision_textured": mean("r_precision_textured", rows),
        "r_precision_textureless": mean("r_precision_textureless", rows),
        "colour_error_mean": mean("colour_error", rows),
        "seconds_mean": mean("seconds", rows),
    }


def table(variants: dict[str, dict[str, Any]]) -> str:
    """One line a variant."""
    lines = [
        "| guidance | Janus | without a face | IoU | least | Chamfer | R-Precision | textureless | ΔE | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, v in variants.items():
        least = min(v["iou_by_kind"], key=lambda kind: v["iou_by_kind"][kind])
        lines.append(
            f"| {name} | {_share(v['janus_rate'])} | {_share(v['janus_rate_without_face'])} | {v['iou_mean']:.3f} "
            f"| {least} {v['iou_by_kind'][least]:.2f} | {v['chamfer_mean']:.3f} | {v['r_precision_textured']:.1%} "
            f"| {v['r_precision_textureless']:.1%} | {v['colour_error_mean']:.1f} | {v['seconds_mean']:.0f} |"
        )
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def contact_sheet(assets: list[Asset], folder: Path) -> Image.Image:
    """A row per prompt and seed: views from the front, the right, the back and the left of the true and the made ones.

    Red frames mark Janus; what is not there is blank.
    """
    variants = list(dict.fromkeys(asset.variant for asset in assets))
    made = list(dict.fromkeys((asset.look, asset.seed) for asset in assets))
    made.sort(key=lambda each: LOOKS.index(each[0]))
    label, head, width = 200, 16, TILE * len(SHEET_AZIMUTHS) + 8
    sheet = Image.new("RGB", (label + width * (1 + len(variants)), head + TILE * len(made)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate((TRUE, *variants)):
        draw.text((label + column * width, 2), title, fill="black")
    for row, (look, seed) in enumerate(made):
        title = f"{Asset('', look, seed).prompt[:28]}, {seed}"
        draw.text((4, head + row * TILE + 26), title, fill="black" if has_face(look) else "gray")
        places = [folder / variant / Asset(variant, look, seed).name for variant in variants]
        for column, place in enumerate((true_strip(folder, look), *(each / "views.png" for each in places))):
            at = (label + column * width, head + row * TILE)
            if place.exists():
                sheet.paste(Image.open(place), at)
            if (place.parent / "janus").exists():
                draw.rectangle((*at, at[0] + width - 9, at[1] + TILE - 1), outline="red", width=2)
    return sheet


def true_strip(folder: Path, look: Look) -> Path:
    """Where the views of the true object are kept."""
    return folder / TRUE / f"{caption(look).replace(' ', '-')}.png"


def strip(views: NDArray[np.float32], azimuths: NDArray[np.float64]) -> Image.Image:
    """The four views of :func:`contact_sheet` among all ``views`` [N, S, S, 4] at ``azimuths`` [N]."""
    chosen = [views[int(np.argmin(np.abs(azimuths - a)))] for a in SHEET_AZIMUTHS]
    return Image.fromarray(np.rint(before_white(np.concatenate(chosen, axis=1)) * 255).astype(np.uint8))
