"""The table, the JSON file and the contact sheet."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .subjects import Subject

TILE = 64
METHODS = ("ours", "hull", "mean_shape")
FIGURES = {
    "iou": "iou_mean",
    "chamfer": "chamfer_mean",
    "chamfer_by_side": "chamfer_by_side_mean",
    "psnr": "psnr_mean",
    "ssim": "ssim_mean",
    "iou_back_half": "iou_back_half",
    "reference_psnr": "reference_psnr_mean",
}
"""Names in the summary of what is measured of one object."""


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float | int]]:
    """Means over one group's objects, by method; and how often ours has the larger volume IoU."""
    means: dict[str, dict[str, float | int]] = {
        method: {name: round(statistics.fmean(row[method][key] for row in rows), 4) for key, name in FIGURES.items()}
        for method in METHODS
    }
    ours = means["ours"]
    ours["wins_over_hull"] = sum(row["ours"]["iou"] > row["hull"]["iou"] for row in rows)
    ours["wins_over_mean_shape"] = sum(row["ours"]["iou"] > row["mean_shape"]["iou"] for row in rows)
    ours["seconds_mean"] = round(statistics.fmean(row["seconds"] for row in rows), 1)
    ours["seconds_max"] = max(row["seconds"] for row in rows)
    ours["objects"] = len(rows)
    return means


def table(groups: dict[str, dict[str, dict[str, float | int]]]) -> str:
    """One line a group and method."""
    lines = ["| kinds | shape | IoU | back half | Chamfer | PSNR | SSIM | reference | ours wins |", "|" + "---|" * 9]
    for group, means in groups.items():
        ours = means["ours"]
        for method, m in means.items():
            wins = f"{ours[f'wins_over_{method}']} of {ours['objects']}" if method != "ours" else ""
            lines.append(
                f"| {group} | {method} | {m['iou_mean']:.3f} | {m['iou_back_half']:.3f} | {m['chamfer_mean']:.4f} "
                f"| {m['psnr_mean']:.1f} dB | {m['ssim_mean']:.3f} | {m['reference_psnr_mean']:.1f} dB | {wins} |"
            )
    return "\n".join(lines)


def strip(pictures: list[NDArray[np.float32]]) -> Image.Image:
    """Pictures [S, S, 3] in [0, 1] side by side, as tiles."""
    tiles = [
        Image.fromarray(np.rint(p * 255).astype(np.uint8)).resize((TILE, TILE), Image.Resampling.BOX) for p in pictures
    ]
    row = Image.new("RGB", (TILE * len(tiles), TILE), "white")
    for i, tile in enumerate(tiles):
        row.paste(tile, (i * TILE, 0))
    return row


def contact_sheet(asked: list[Subject], folder: Path) -> Image.Image:
    """A row per finished object: its picture, then four unseen views each of the truth, ours and the baselines."""
    finished = [subject for subject in asked if (folder / subject.name / "views.png").exists()]
    label, head, views = 110, 16, 4
    width = label + TILE * (1 + views * (1 + len(METHODS)))
    sheet = Image.new("RGB", (width, head + TILE * len(finished)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, name in enumerate(("picture", "truth", *(m.replace("_", " ") for m in METHODS))):
        draw.text((label + TILE * (max(0, 1 + views * (i - 1))), 2), name, fill="black")
    for row, subject in enumerate(finished):
        draw.text((4, head + row * TILE + 26), subject.name, fill="black")
        sheet.paste(Image.open(folder / subject.name / "views.png"), (label, head + row * TILE))
    return sheet
