"""Reconstruction in figures: ``python -m benchmarks.reconstruct --out out/reconstruct``.

Makes thirty held-out objects, twenty of known kinds and ten of kinds that training never showed, each from one picture,
one object a process, and measures them beside two baselines: the visual hull of the one silhouette, cut at the object's
true depths, and the mean training shape of the kind. What is finished stays and what was interrupted resumes. Prints a
table and writes ``reconstruct.json`` and ``reconstruct.png`` into the folder. Control in the same run: the true meshes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from backend.errors import DivergedError
from backend.request import BUILT_IN_VIEW_MODEL
from backend.threads import prepare_environment

from .objects import STAND_INS, make, measured
from .report import METHODS, contact_sheet, summary, table
from .subjects import Subject, subjects


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All objects that could be made, in their order."""
    from .baselines import MeanShapes

    rows: dict[str, dict[str, Any]] = {}
    means = MeanShapes()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, context, max_tasks_per_child=1) as pool:
        waiting: dict[Any, Subject] = {}
        for subject in chosen(arguments):
            kept = arguments.out / subject.name / "measured.json"
            if kept.exists():
                rows[subject.name] = json.loads(kept.read_text(encoding="utf-8"))
                continue
            waiting[pool.submit(make, subject, arguments)] = subject
        for future in as_completed(waiting):
            subject = waiting[future]
            try:
                seconds = future.result()
            except DivergedError as error:  # counted in the report, and tried again by the next run
                print(f"{subject.name:14} {error}", flush=True)
                continue
            row = rows[subject.name] = measured(subject, arguments.out / subject.name, seconds, arguments.made, means)
            line = "  ".join(f"{m} {row[m]['iou']:.3f}" for m in METHODS)
            print(f"{subject.name:14} IoU {line}  Chamfer {row['ours']['chamfer']:.4f}  {seconds:.0f} s", flush=True)
    return [rows[subject.name] for subject in chosen(arguments) if subject.name in rows]


def chosen(arguments: argparse.Namespace) -> list[Subject]:
    """The objects that were asked for."""
    asked = subjects(arguments.known, arguments.unseen)
    return [subject for subject in asked if not arguments.only or subject.name in arguments.only]


def result(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """What is written: means by group and method, controls, settings, and every object."""
    groups = {group: [row for row in rows if row["group"] == group] for group in ("known", "unseen")}
    asked = [subject.group for subject in chosen(arguments)]
    return {
        **{group: summary(found) for group, found in groups.items() if found},
        "failed": {group: asked.count(group) - len(found) for group, found in groups.items()},
        "true_mesh": {
            "iou_min": min(row["true_mesh"]["iou"] for row in rows),
            "chamfer_max": max(row["true_mesh"]["chamfer"] for row in rows),
        },
        "preset": arguments.preset,
        "settings": arguments.set,
        "objects": rows,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--known", type=int, default=20, help="objects of known kinds")
    parser.add_argument("--unseen", type=int, default=10, help="objects of kinds that training never showed")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="only these, such as 03-cat")
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--view-model", default=BUILT_IN_VIEW_MODEL)
    parser.add_argument("--workers", type=int, default=2, help="objects made at the same time")
    parser.add_argument("--made", choices=STAND_INS, default="job", help="truth or hull: a check of the benchmark")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as in the generate command")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("DREAMLATHE_THREADS", str(max(1, (os.cpu_count() or 1) // arguments.workers)))
    prepare_environment()
    rows = run(arguments)
    if not rows:
        raise SystemExit("No object was made.")
    found = result(rows, arguments)
    print(table({group: found[group] for group in ("known", "unseen") if group in found}))
    (arguments.out / "reconstruct.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    contact_sheet(chosen(arguments), arguments.out).save(arguments.out / "reconstruct.png")


if __name__ == "__main__":
    main()
