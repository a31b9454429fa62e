"""Janus in figures: ``python -m benchmarks.janus --out out/janus``.

Makes every prompt under every variant of guidance, from the same seeds, one asset a process, and judges the meshes by
renders from 36 azimuths. What is finished stays and what was interrupted resumes. Prints a table and writes
``janus.json`` and ``janus.png`` into the folder. Controls in the same run: the true meshes, and two-faced ones.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from backend.errors import DivergedError
from backend.threads import prepare_environment

from .assets import judged, make
from .subjects import LOOKS, VARIANTS, Asset, has_face


def run(arguments: argparse.Namespace, judge: Any) -> dict[str, list[dict[str, Any]]]:
    """All assets by variant."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.variants}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, context, max_tasks_per_child=1) as pool:
        waiting: dict[Any, tuple[Asset, Path]] = {}
        for asset in chosen(arguments):
            folder = arguments.out / asset.variant / asset.name
            if is_finished(asset, arguments.out):
                rows[asset.variant].append(json.loads((folder / "measured.json").read_text(encoding="utf-8")))
                continue
            future = pool.submit(make, asset, folder, arguments.preset, arguments.model, arguments.set)
            waiting[future] = asset, folder
        for future in as_completed(waiting):
            asset, folder = waiting[future]
            try:
                row = judged(asset, folder, future.result(), judge)
            except DivergedError as error:  # counted in the report, and tried again by the next run
                print(f"{asset.variant:20} {asset.prompt:42} seed {asset.seed}: {error}", flush=True)
                continue
            rows[asset.variant].append(row)
            print(
                f"{asset.variant:20} {asset.prompt:42} seed {asset.seed}: {'JANUS' if row['janus'] else 'one face':8} "
                f"IoU {row['iou']:.3f}  {row['seconds']:.0f} s",
                flush=True,
            )
    return rows


def controls(judge: Any, out: Path) -> dict[str, Any]:
    """The true meshes must never be called Janus, two-faced ones always; pictures of the true ones stay in ``out``."""
    from backend.toybox.world import make_object

    from ..truth import true_mesh, two_faced
    from .measures import AZIMUTHS, judge_mesh, views
    from .report import strip, true_strip

    true: list[dict[str, Any]] = []
    double: list[dict[str, Any]] = []
    for look in LOOKS:
        mesh = true_mesh(make_object(look))
        seen, place = views(mesh), true_strip(out, look)
        place.parent.mkdir(exist_ok=True)
        strip(seen, AZIMUTHS).save(place)
        true.append(judge_mesh(mesh, seen, look, judge))
        if has_face(look):
            twice = two_faced(mesh)
            double.append(judge_mesh(twice, views(twice), look, judge))
    return {
        "true_meshes": {
            "janus_rate": sum(row["janus"] for row in true) / len(true),
            "front_elsewhere_max": max(row["front_elsewhere"] for row in true),
            "r_precision_textured": sum(row["r_precision_textured"] for row in true) / len(true),
            "r_precision_textureless": sum(row["r_precision_textureless"] for row in true) / len(true),
        },
        "two_faced": {
            "janus_rate": sum(row["janus"] for row in double) / len(double),
            "front_elsewhere_min": min(row["front_elsewhere"] for row in double),
        },
    }


def chosen(arguments: argparse.Namespace) -> list[Asset]:
    """Every prompt, variant and seed that was asked for; prompts first, so that an early stop has all variants."""
    looks = [look for look in LOOKS if not arguments.kinds or look.kind in arguments.kinds]
    assets = [Asset(v, look, seed) for seed in range(arguments.seeds) for look in looks for v in arguments.variants]
    return [each for each in assets if not arguments.finished or is_finished(each, arguments.out)]


def is_finished(asset: Asset, out: Path) -> bool:
    """Whether an asset was made and measured."""
    return (out / asset.variant / asset.name / "measured.json").exists()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2, help="seeds a prompt (4 where there is a GPU)")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--kinds", nargs="*", default=[], help="only prompts of these kinds")
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--workers", type=int, default=2, help="assets made at the same time")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="unless a variant sets it")
    parser.add_argument("--finished", action="store_true", help="make nothing: a table of what is there")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("DREAMLATHE_THREADS", str(max(1, (os.cpu_count() or 1) // arguments.workers)))
    prepare_environment()

    from backend.toybox.judge import kept_judge

    from .report import contact_sheet, summary, table

    judge, skill = kept_judge(arguments.out / "judge.pt")
    checks = controls(judge, arguments.out)
    print(json.dumps({"judge": skill, "controls": checks}, indent=2), flush=True)
    rows = run(arguments, judge)
    asked = Counter(asset.variant for asset in chosen(arguments))
    variants = {name: {**summary(found), "failed": asked[name] - len(found)} for name, found in rows.items() if found}
    if not variants:
        raise SystemExit(f"No asset in {arguments.out} is finished.")
    print(table(variants))
    result = {"judge": skill, "controls": checks, "variants": variants, "settings": arguments.set}
    (arguments.out / "janus.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    contact_sheet(chosen(arguments), arguments.out).save(arguments.out / "janus.png")


if __name__ == "__main__":
    main()
