"""The benchmark of speed: its cases, its clock, its fits and its files, at their smallest."""

from __future__ import annotations

import argparse
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.field import GridLayout, HashGridConfig, select_engine
from backend.sketch import SketchSettings
from benchmarks.speed import cases, compositing, parts, peer, report, scaling, steps
from benchmarks.speed.__main__ import PARTS, parser
from benchmarks.speed.cases import Case, Row

ROW = Row("encode forward", "numba", {"points": 8}, 0.002, 3, 1.5, {}, 0.003)


def test_a_row_goes_to_json_and_back() -> None:
    rows = [ROW, Row("whole step", "toybox", {"side": 64}, 0.05, 9, None, {"shares": {"field": 0.25}})]
    document = json.loads(json.dumps(report.document(rows)))
    assert set(document) == {"date", "machine", "versions", "rows"}
    assert {"name", "engine", "size", "median_s", "runs", "peak_mib"} <= set(document["rows"][0])
    assert document["machine"]["threads"] == torch.get_num_threads()
    assert document["versions"]["torch"]
    assert report.read_rows(document) == rows


def test_the_table_and_the_comparison_say_what_was_found() -> None:
    slower = Row(ROW.name, ROW.engine, ROW.size, 0.005, 3)
    other = Row(ROW.name, "torch", ROW.size, 0.005, 3)
    assert "| encode forward | numba | points 8 | 2 ms | 3 ms | 3 | 2 | |" in report.table([ROW]).replace("  ", " ")
    lines = report.comparison([ROW], [slower, other]).splitlines()
    assert len(lines) == 3
    assert lines[2].endswith("| 5 ms | 2 ms | 2.50 |")


@pytest.mark.parametrize("levels", [2, 5])
def test_gather_is_the_same_grid(levels: int) -> None:
    layout = GridLayout(HashGridConfig.from_finest(levels, 2, 8, 64))
    x, params = torch.rand(50, 3), torch.rand(layout.n_params)
    expected = select_engine(layout, "cpu", "torch").encode(x, params, levels)
    assert torch.allclose(parts.Gather(layout).encode(x, params, levels), expected, atol=1e-5)


def test_every_engine_and_size_is_a_case_of_its_own() -> None:
    composed = compositing.composite_cases(Path("out"), quick=False)
    made = [*parts.encode_cases(quick=False), *parts.render_cases(quick=False), *composed]
    assert len({(case.engine, cases.shown_size(case.size)) for case in made}) == len(made)
    assert {case.engine for case in parts.encode_cases(quick=True)} == {"gather", "torch", "numba"}


def test_a_case_is_timed_as_often_as_it_says() -> None:
    rows = cases.measure(parts.encode_cases(quick=True)[2])
    assert [row.name for row in rows] == ["encode forward", "encode backward"]
    assert all(row.runs == 3 and row.median_s > 0 for row in rows)


def test_the_shell_has_the_occupancy_that_is_asked_for() -> None:
    for share in (0.1, 0.5):
        _, grid = parts.shell(share, steps.OptimizeSettings(occupancy_resolution=24))
        assert grid.occupied_fraction == pytest.approx(share, abs=0.03)


def test_a_view_is_rendered_forth_and_back() -> None:
    rows = cases.measure(Case("benchmarks.speed.parts:rendering", {"side": 16, "occupied": 0.2}, "auto", {}, 1, 0))
    assert [row.name for row in rows] == ["render forward", "render backward"]


def test_exponents_are_fitted() -> None:
    sizes = [10, 20, 40, 80]
    assert scaling.exponent(sizes, [3e-4 * s**1.5 for s in sizes]) == pytest.approx(1.5)


@pytest.mark.parametrize("axis", scaling.AXES)
def test_every_axis_names_a_function_and_its_argument(axis: str) -> None:
    function, argument, values = scaling.AXES[axis]
    assert argument in getattr(scaling, function).__annotations__
    assert len(values) > 2
    found: list[Case] = []

    def timed(case: Case) -> list[Row]:
        found.append(case)
        return [Row("step", case.engine, case.size, float(case.size[axis]), 1)]

    rows = scaling.scaling_rows(axis, quick=False, timed=timed)
    assert len(found) == len(values)
    assert rows[-1].more == {"exponent": pytest.approx(1.0)}


def test_the_clock_gives_time_to_the_innermost() -> None:
    clock, now = steps.Clock(), [0.0]

    def passes(seconds: float) -> None:
        now[0] += seconds

    inner = clock.around("inner", lambda: passes(2.0))

    def both() -> None:
        passes(1.0)
        inner()
        passes(0.5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps.time, "perf_counter", lambda: now[0])
        clock.around("outer", both)()
    assert dict(clock.seconds) == {"inner": 2.0, "outer": 1.5}


@pytest.mark.parametrize("family", ["toybox", steps.PICTURED])
def test_the_parts_of_a_step_add_up_and_are_left_as_they_were(family: str) -> None:
    torch.optim.Adam([torch.zeros(1)])  # at the first one, torch itself puts its hook around the step
    before = (steps.Renderer.render, torch.autograd.backward, torch.optim.Adam.step, steps.latent_guidance.judged)
    small: dict[str, Any] = {"resolution": 16, "samples_per_ray": 8, "grid_levels": 2, "occupancy_resolution": 8}
    row = steps.step_row(family, 6, SketchSettings(candidates=3, told_candidates=3, sampling_steps=1), **small)
    assert row.size == {"side": 16, "rows": 3}
    assert row.runs == 2
    assert sum(row.more["shares"].values()) == pytest.approx(1.0, abs=1e-3)
    assert {"networks", "field", "rendering", "guidance", "backward", "optimizer", "rest"} == set(row.more["shares"])
    assert all(share > 0 for share in row.more["shares"].values())
    after = (steps.Renderer.render, torch.autograd.backward, torch.optim.Adam.step, steps.latent_guidance.judged)
    assert after == before


def test_the_command_line_knows_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(parser().parse_args([]).only) == PARTS
    assert parser().parse_args(["--only", "step", "--quick"]).quick
    with pytest.raises(SystemExit):
        parser().parse_args(["--only", "nothing"])
    assert isinstance(parser(), argparse.ArgumentParser)
    assert "invalid choice" in capsys.readouterr().err


def test_a_stand_in_is_there_only_for_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "clone.py").write_text(
        "import raymarching, numpy\nfrom nvdiffrast.torch import RasterizeCudaContext\nmade = RasterizeCudaContext(1)\n"
    )
    with peer.at_home(tmp_path):
        import clone  # pyright: ignore[reportMissingImports]

        found: types.ModuleType = clone
        assert isinstance(found.raymarching, peer.Nothing)
        assert found.numpy is np
        assert isinstance(found.made, peer.Anything)
    for name in ("clone", "raymarching", "nvdiffrast", "nvdiffrast.torch"):
        sys.modules.pop(name, None)
    with pytest.raises(ImportError):
        __import__("raymarching")
    assert str(tmp_path) not in sys.path


def test_without_a_clone_the_peer_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="clone it there"):
        peer.peer_row(tmp_path, 1)


_NERFACC = """
def render_weight_from_density(starts, ends, density):
    through = density * (ends - starts)
    before = through.cumsum(-1) - through
    alpha = 1 - (-through).exp()
    return (-before).exp() * alpha * {scale}, None, alpha

def accumulate_along_rays(weights, values):
    return (weights[..., None] * (1.0 if values is None else values)).sum(-2)
"""


def test_nerfacc_is_timed_where_it_comes_to_the_same_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "nerfacc" / "__init__.py"
    place.parent.mkdir()
    place.write_text(_NERFACC.format(scale=1.0))
    ours, theirs = (cases.measure(case) for case in compositing.composite_cases(tmp_path, quick=True))
    assert [row.name for row in theirs] == [row.name for row in ours] == ["composite forward", "composite backward"]
    assert str(tmp_path) not in sys.path
    monkeypatch.delitem(sys.modules, "nerfacc")
    place.write_text(_NERFACC.format(scale=1.1) + "# another length, so that no compiled file is taken for it")
    with pytest.raises(AssertionError):
        compositing.compositing(compositing.THEIRS, 4, 8, str(tmp_path))
    monkeypatch.delitem(sys.modules, "nerfacc")


def test_without_its_folder_nerfacc_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="pip install --no-deps --target"):
        compositing.load(tmp_path)
