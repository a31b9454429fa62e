"""Speed and memory, measured side by side: ``python -m benchmarks.speed``.

(encode) the hash grid by engine, (render) a view, (composite) its sums over rays, (step) a whole step by family,
(generation) whole generations by preset, (scaling) what cost grows with, (startup) imports, model and first preview.
Prints a table and writes JSON. Memory is a fresh process' own. With ``--peer FOLDER``, a clone of stable-dreamfusion is
timed beside us, see ``peer``; with ``--nerfacc FOLDER`` nerfacc's compositing, see ``compositing``. What needs a GPU is
in ``python -m benchmarks.guidance_speed``.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from .cases import ROOT, Row, measure_apart, prepare

PARTS = ("encode", "render", "composite", "step", "generation", "scaling", "startup")
RESULTS = ROOT / "benchmarks" / "results" / "speed.json"


def rows_of(part: str, arguments: argparse.Namespace) -> Iterator[Row]:
    """The rows of a part, as they come."""
    from . import compositing, parts, startup

    quick = arguments.quick
    if part in {"encode", "render", "composite"}:
        cases = {
            "encode": parts.encode_cases,
            "render": parts.render_cases,
            "composite": functools.partial(compositing.composite_cases, arguments.nerfacc),
        }
        for case in cases[part](quick=quick):
            yield from measure_apart(case)
    elif part == "step":
        yield from step_rows(arguments)
    elif part == "generation":
        from . import generations

        for name in arguments.presets:
            yield apart(generations.generation_row, name, quick=quick)
    elif part == "scaling":
        from . import scaling

        for axis in scaling.AXES:
            yield from apart(scaling.scaling_rows, axis, quick=quick)
    else:
        yield from startup.startup_rows(arguments.bpy, quick=quick)


def step_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """Ours by family, the painting, and the peer's."""
    from backend.sketch import SketchSettings

    from . import peer, steps

    small: dict[str, Any] = {}
    if arguments.quick:
        few = SketchSettings(candidates=3, told_candidates=3, sampling_steps=2)
        small = {"resolution": 16, "samples_per_ray": 16, "sketch": few}
    for family in (*steps.FAMILIES, steps.PICTURED):
        yield apart(steps.step_row, family, 20 if arguments.quick else 300, **small)
    yield from apart(steps.painting_rows, quick=arguments.quick)
    if arguments.peer:
        yield apart(peer.peer_row, arguments.peer, 1 if arguments.quick else 5)


def apart(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What ``function`` returns in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=prepare) as pool:
        return pool.submit(function, *arguments, **named).result()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--only", nargs="*", default=list(PARTS), choices=PARTS, help="these parts alone")
    made.add_argument("--quick", action="store_true", help="small sizes, few runs: a test of the benchmark itself")
    made.add_argument("--presets", nargs="*", default=["draft", "standard"], choices=["draft", "standard", "high"])
    made.add_argument("--peer", type=Path, help="a clone of stable-dreamfusion to measure beside us")
    made.add_argument("--nerfacc", type=Path, help="a folder with nerfacc, to composite beside us")
    made.add_argument("--bpy", type=Path, default=default_bpy(), help="Python of an environment that has bpy")
    made.add_argument("--out", type=Path, default=RESULTS)
    made.add_argument("--compare", type=Path, help="another such JSON file, to be compared with this run")
    made.add_argument("--keep", action="store_true", help="keep the rows that --out has of other parts")
    made.add_argument("--table", action="store_true", help="print the table that --out has, and measure nothing")
    return made


def default_bpy() -> Path | None:
    """The interpreter that ``make setup`` made for headless Blender, if it is there."""
    place = ROOT / ".venv-bpy" / "bin" / "python"
    return place if place.exists() else None


def main() -> None:
    """Measure, print, write."""
    arguments = parser().parse_args()
    prepare()
    from . import report

    if arguments.table:
        print(report.table(report.read_rows(json.loads(arguments.out.read_text(encoding="utf-8")))))
        return
    rows: list[Row] = []
    if arguments.keep and arguments.out.exists():
        rows = report.read_rows(json.loads(arguments.out.read_text(encoding="utf-8")))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for part in arguments.only:
        for row in rows_of(part, arguments):
            rows = [other for other in rows if other.key != row.key] + [row]
            print(report.table([row]).splitlines()[-1], flush=True)
        arguments.out.write_text(json.dumps(report.document(rows), indent=2) + "\n", encoding="utf-8")
    print(f"\n{report.table(rows)}")
    if arguments.compare:
        others = report.read_rows(json.loads(arguments.compare.read_text(encoding="utf-8")))
        print(f"\n{report.comparison(rows, others)}")


if __name__ == "__main__":
    main()
