"""The Janus benchmark: its measures know the truth from a two-faced mesh, and its variants differ in guidance alone."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.toybox.kinds import KINDS
from backend.toybox.world import Look, make_object
from benchmarks.janus.__main__ import chosen
from benchmarks.janus.measures import AZIMUTHS, colour_error, front_where_none_is, uncoloured, views
from benchmarks.janus.report import TILE, contact_sheet, summary, table, true_strip
from benchmarks.janus.subjects import LOOKS, PUBLISHED, VARIANTS, Asset, has_face
from benchmarks.truth import shape_score, true_mesh, two_faced


def test_the_prompts_are_as_many_as_promised_and_distinct() -> None:
    assert sum(has_face(look) for look in LOOKS) == 12
    assert sum(not has_face(look) for look in LOOKS) == 6
    assert {look.kind for look in LOOKS} == set(KINDS)
    told_apart = {(look.kind, look.colour) for look in LOOKS}
    assert len(told_apart) == len(LOOKS)


def test_published_variants_differ_in_guidance_alone() -> None:
    requests = {name: Asset(name, LOOKS[0], 3).request("standard", "toybox", []) for name in VARIANTS}
    published = [requests[name] for name in PUBLISHED]
    assert published[0].optimize.iterations == 3 * requests["default"].optimize.iterations
    for request in published:
        assert dataclasses.replace(request, guidance=published[0].guidance) == published[0]
    assert len({request.digest() for request in requests.values()}) == len(VARIANTS)
    for name, request in requests.items():
        assert (request.seed, request.prompt, request.mesh) == (3, published[0].prompt, published[0].mesh)
        assert request.guidance.camera_conditioning == (name == "camera")


def test_of_what_is_there_a_table_can_be_made(tmp_path) -> None:
    arguments = Namespace(out=tmp_path, kinds=["duck"], seeds=2, variants=["plain", "default"], finished=False)
    assert len(chosen(arguments)) == 8
    made = Asset("default", LOOKS[2], 1)
    (tmp_path / "default" / made.name).mkdir(parents=True)
    arguments.finished = True
    assert chosen(arguments) == []
    (tmp_path / "default" / made.name / "measured.json").write_text("{}", encoding="utf-8")
    assert chosen(arguments) == [made]


def test_settings_go_to_every_variant() -> None:
    for name in VARIANTS:
        changed = Asset(name, LOOKS[0], 0).request("draft", "toybox", ["optimize.iterations=7"])
        assert changed.optimize.iterations == (21 if name in PUBLISHED else 7)


def test_a_front_counts_where_none_is() -> None:
    turn = np.abs((AZIMUTHS + 180) % 360 - 180)
    assert front_where_none_is((turn < 60).astype(float)) == 0
    assert front_where_none_is(((turn < 50) | (turn > 130)).astype(float)) == 1
    one_view = np.where(AZIMUTHS == 150, 1.0, 0.0)
    assert front_where_none_is(one_view) == pytest.approx(1 / 3)


@pytest.fixture(scope="module")
def duck() -> Any:
    return true_mesh(make_object(Look("duck", "red")))


def test_the_true_mesh_is_the_object(duck: Any) -> None:
    score = shape_score(duck, make_object(Look("duck", "red")))
    assert score["iou"] > 0.97
    assert score["chamfer"] < 0.01
    assert colour_error(views(duck), views(duck)) == 0
    picture = views(duck)[0]
    middle = picture[30:40, 28:36, :3].mean((0, 1))
    assert middle[0] > 2 * middle[2]


def test_a_two_faced_mesh_looks_the_same_from_behind(duck: Any) -> None:
    pictures = views(two_faced(duck))
    front, back = pictures[0], pictures[list(AZIMUTHS).index(180.0)]
    assert np.abs(front - back[:, ::-1]).mean() < 0.02
    true = views(duck)
    assert np.abs(true[0] - true[list(AZIMUTHS).index(180.0)][:, ::-1]).mean() > 0.03


def test_uncoloured_meshes_are_grey(duck: Any) -> None:
    picture = views(uncoloured(duck))[4]
    seen = picture[picture[..., 3] > 0.99][:, :3]
    assert np.ptp(seen, axis=1).max() < 0.01


def test_the_summary_counts_faces_apart() -> None:
    row = {"kind": "duck", "face": True, "janus": True, "iou": 0.5, "chamfer": 0.1, "colour_error": 4.0, "seconds": 60}
    row |= {"r_precision_textured": 1.0, "r_precision_textureless": 0.5}
    other = {**row, "kind": "car", "face": False, "janus": False, "iou": 0.7}
    third = {**row, "janus": False}
    result = summary([row, other, third])
    assert result["janus_rate"] == 0.5
    assert result["janus_rate_without_face"] == 0.0
    assert result["iou_by_kind"] == {"car": 0.7, "duck": 0.5}
    assert result["iou_mean"] == pytest.approx(0.5667)
    assert "50.0%" in table({"plain": result})
    faced = summary([row])
    assert faced["janus_rate_without_face"] is None and "| – |" in table({"plain": faced})


def test_the_sheet_has_the_true_object_and_every_seed(tmp_path) -> None:
    duck, bed = LOOKS[2], LOOKS[12]
    views = Image.new("RGB", (4 * TILE, TILE), "blue")
    true_strip(tmp_path, duck).parent.mkdir()
    views.save(true_strip(tmp_path, duck))
    assets = [Asset("plain", bed, 0), Asset("plain", duck, 0), Asset("plain", duck, 1)]
    two_faced = tmp_path / "plain" / assets[2].name
    two_faced.mkdir(parents=True)
    views.save(two_faced / "views.png")
    (two_faced / "janus").touch()
    sheet = np.asarray(contact_sheet(assets, tmp_path)).astype(int)
    blue, red = ((sheet == colour).all(-1) for colour in ((0, 0, 255), (255, 0, 0)))
    rows = [slice(16 + TILE * k, 16 + TILE * (k + 1)) for k in range(3)]  # the duck's two seeds, then the bed
    true, made = slice(200, 464), slice(464, 728)
    assert [blue[row, true].sum() for row in rows] == [4 * TILE**2, 4 * TILE**2, 0]
    assert [blue[row, made].any() for row in rows] == [False, True, False]
    assert [red[row, made].any() for row in rows] == [False, True, False]
    assert not red[:, true].any()
