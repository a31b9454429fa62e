"""A reference view: framed to its camera, resampled as light is, with its depth, its normals and its preview."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from backend.cameras import orbit_cameras, rays, world_to_ndc
from backend.errors import OutputError, PictureError
from backend.picture import Cutout, ball_extent, cut_out, frame, prepare, preview_image, read_maps, read_picture
from backend.picture.colour import linear_to_srgb, over, premultiply, srgb_to_linear
from backend.picture.framing import BALL_FILL, LARGEST_EXTENT, enclosing_circle, frame_object
from backend.picture.resample import nearest, resample, weights
from tests.unit.mattes import object_matte, picture_of

CAMERA: dict[str, Any] = {"distance": 3.0, "field_of_view": 40.0}


def cutout(rgba: np.ndarray) -> Cutout:
    return Cutout("a.png", rgba.astype(np.float32), "transparency", 0.3, 0.0)


def disc(height: int, width: int, x: float, y: float, radius: float, colour: tuple[float, ...] = (1, 0, 0)) -> Cutout:
    """An antialiased disc; its middle and radius in pixels."""
    v, u = np.mgrid[:height, :width] + 0.5
    alpha = np.clip(radius - np.hypot(u - x, v - y) + 0.5, 0, 1)
    rgba = np.concatenate([np.broadcast_to(colour, (height, width, 3)), alpha[..., None]], axis=-1)
    return cutout(rgba)


def ball_seen(distance: float, field_of_view: float, size: int) -> np.ndarray:
    """[size, size]: where a camera of the rig sees the ball of radius BALL_FILL."""
    origin, direction = rays(orbit_cameras(30.0, 20.0, distance, field_of_view), size, size)
    nearest_point = np.linalg.norm(np.cross(origin[0].astype(float), direction[0]), axis=-1)
    return nearest_point < BALL_FILL


@pytest.mark.parametrize(("distance", "field_of_view"), [(3.0, 40.0), (1.8, 70.0), (5.0, 30.0), (20.0, 40.0)])
def test_extent_is_that_of_the_ball(distance: float, field_of_view: float) -> None:
    points = np.random.default_rng(0).normal(size=(20_000, 3))
    points *= BALL_FILL / np.linalg.norm(points, axis=-1, keepdims=True)
    seen = np.linalg.norm(world_to_ndc(orbit_cameras(0.0, 0.0, distance, field_of_view), points)[0], axis=-1).max()
    assert abs(ball_extent(distance, field_of_view) / seen - 1.0) < 2e-3


@pytest.mark.parametrize(("distance", "field_of_view"), [(3.0, 40.0), (2.5, 50.0), (4.0, 60.0)])
@pytest.mark.parametrize("at", [(150, 200, 60.0, 80.0, 50.0), (80, 64, 40.0, 30.0, 12.0), (300, 90, 45.0, 250.0, 45.0)])
def test_the_silhouette_is_that_of_the_ball(distance: float, field_of_view: float, at: tuple[float, ...]) -> None:
    height, width, x, y, radius = at
    size = 128
    given_disc = disc(int(height), int(width), x, y, radius)
    alpha = frame(given_disc, size, distance=distance, field_of_view=field_of_view).rgba[..., 3]
    ball = ball_seen(distance, field_of_view, size)
    solid = alpha >= 0.5
    assert (solid & ball).sum() / (solid | ball).sum() > 0.97
    for axis in (0, 1):
        seen, wanted = (np.flatnonzero(mask.any(axis=axis)) for mask in (solid, ball))
        assert abs(seen[0] - wanted[0]) <= 1 and abs(seen[-1] - wanted[-1]) <= 1


def test_too_near_a_camera_shows_the_whole_object() -> None:
    alpha = frame(disc(90, 90, 45, 45, 20), 128, distance=1.1, field_of_view=40.0).rgba[..., 3]
    rows = np.flatnonzero((alpha >= 0.5).any(axis=1))
    assert abs((np.ptp(rows) + 1) / 128 - LARGEST_EXTENT) < 0.03


def test_a_box_stays_in_the_ball() -> None:
    rgba = np.zeros((100, 100, 4))
    rgba[20:80, 30:70] = 1.0
    alpha = frame(cutout(rgba), 128, **CAMERA).rgba[..., 3]
    y, x = (np.mgrid[:128, :128] + 0.5) / 64.0 - 1.0
    radius = np.hypot(x, y)[alpha >= 0.5].max()
    assert abs(radius - ball_extent(**CAMERA)) < 0.02


def test_half_opaque_objects_have_a_frame() -> None:
    rgba = np.zeros((40, 60, 4))
    rgba[10:30, 20:40] = 0.5
    alpha = frame(cutout(rgba), 64, **CAMERA).rgba[..., 3]
    assert abs(alpha.max() - 0.5) < 1e-6 and alpha[32, 32] == alpha.max()


def test_dust_does_not_move_the_frame() -> None:
    clean = disc(200, 200, 100, 100, 50)
    dusty = cutout(clean.rgba.copy())
    dusty.rgba[3:5, 3:5] = 1.0
    assert frame_object(dusty.rgba[..., 3], 0.9) == frame_object(clean.rgba[..., 3], 0.9)


coordinate = st.floats(-100, 100).map(lambda v: round(v, 3))


@given(st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=40))
def test_enclosing_circle_is_the_smallest(points: list[tuple[float, float]]) -> None:
    at = np.array(points)
    centre, radius = enclosing_circle(at)
    away = np.linalg.norm(at - centre, axis=1)
    assert away.max() <= radius + 1e-6
    # No smaller one: the points on it are not all on one side of any line through its middle.
    rim = at[away > radius - 1e-4] - centre
    if radius > 1e-3:
        turn = np.sort(np.arctan2(rim[:, 1], rim[:, 0]))
        gaps = np.diff(np.append(turn, turn[0] + 2 * np.pi))
        assert gaps.max() <= np.pi + 0.02


@given(
    source=st.integers(1, 60),
    target=st.integers(1, 60),
    start=st.floats(-50, 50),
    step=st.floats(0.05, 20.0),
)
def test_weights(source: int, target: int, start: float, step: float) -> None:
    matrix = weights(source, target, start, step).toarray()
    assert matrix.shape == (target, source) and matrix.min(initial=0.0) >= 0.0
    low = start + np.arange(target) * step
    share = np.clip(np.minimum(low + step, source) - np.maximum(low, 0.0), 0.0, None) / step
    assert np.allclose(matrix.sum(axis=1), share, atol=1e-5)
    index = nearest(source, target, start, step)
    centre = low + step / 2
    assert np.array_equal(index >= 0, (np.floor(centre) >= 0) & (np.floor(centre) < source))


def test_resampling_to_the_same_grid_changes_nothing() -> None:
    planes = np.random.default_rng(0).random((9, 7, 4)).astype(np.float32)
    assert np.allclose(resample(planes, weights(9, 9, 0, 1), weights(7, 7, 0, 1)), planes, atol=1e-6)
    flipped = resample(planes, weights(9, 18, 0, 0.5), weights(7, 7, 0, 1))
    assert flipped.shape == (18, 7, 4) and np.allclose(flipped[::2].mean(), planes.mean(), atol=0.02)


def test_resizing_leaves_no_fringe() -> None:
    """Half red, half nothing with green hidden in it: whatever the scale, every pixel with opacity is red."""
    for height, size in ((200, 64), (40, 128), (333, 100)):
        given_disc = disc(height, height, height / 2, height / 2, height / 3)
        rgba = given_disc.rgba.copy()
        rgba[rgba[..., 3] == 0.0, :3] = (0.0, 1.0, 0.0)
        seen = frame(cutout(rgba), size, **CAMERA).rgba
        there = seen[..., 3] > 0.01
        assert np.abs(seen[there][:, :3] - (1.0, 0.0, 0.0)).max() < 1e-3
        assert np.all(seen[seen[..., 3] == 0.0] == 0.0)
        assert over(seen, (1.0, 0.0, 0.0))[..., 1:].max() < 1e-3 and over(seen, (1.0, 0.0, 0.0))[..., 0].min() > 0.999


def test_resizing_keeps_the_light() -> None:
    rng = np.random.default_rng(0)
    rgba = np.concatenate([rng.integers(0, 2, (256, 256, 3)).astype(float), np.ones((256, 256, 1))], axis=-1)
    seen = frame(cutout(rgba), 32, framing="as-is", **CAMERA).rgba
    assert abs(premultiply(seen)[..., :3].mean() - 0.5) < 0.01
    assert np.abs(seen[..., :3] - linear_to_srgb(0.5)).max() < 0.25 and np.all(seen[..., 3] == 1.0)
    assert abs(srgb_to_linear(seen[..., :3]).mean() - srgb_to_linear(rgba[..., :3]).mean()) < 0.01


@pytest.mark.parametrize(("height", "width"), [(60, 120), (120, 60), (90, 90)])
def test_as_it_is(height: int, width: int) -> None:
    rgba = np.ones((height, width, 4))
    rgba[: height // 2, :, 1:3] = 0.0
    seen = frame(cutout(rgba), 60, framing="as-is", **CAMERA).rgba
    side = max(height, width)
    rows, columns = round(60 * height / side), round(60 * width / side)
    top, left = (60 - rows) // 2, (60 - columns) // 2
    wanted = np.zeros((60, 60))
    wanted[top : top + rows, left : left + columns] = 1.0
    assert np.array_equal(seen[..., 3], wanted)
    assert np.allclose(seen[top + 1, 30, :3], (1, 0, 0)) and np.allclose(seen[top + rows - 2, 30, :3], (1, 1, 1))


def test_extreme_shapes_and_sizes() -> None:
    thin = np.zeros((33, 1500, 4))
    thin[10:20, 100:1400] = 1.0
    for size in (64, 1024):
        alpha = frame(cutout(thin), size, **CAMERA).rgba[..., 3]
        columns = np.flatnonzero((alpha >= 0.2).any(axis=0))
        assert abs((np.ptp(columns) + 1) / size - ball_extent(**CAMERA)) < 2.0 / size
    with pytest.raises(PictureError, match="nothing of the object is left"):
        frame(cutout(thin), 8, distance=100.0, field_of_view=150.0)


def saved(folder: Path, alpha: bool = True) -> tuple[Path, np.ndarray]:
    true, colour = object_matte("star", 96)
    levels = np.round(np.concatenate([colour, true[..., None]], axis=-1) * 255).astype(np.uint8)
    Image.fromarray(levels if alpha else levels[..., :3]).save(folder / "star.png")
    return folder / "star.png", true


def test_prepare_saves_a_preview(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    reference = prepare(path, 64, preview=tmp_path / "seen.png", **CAMERA)
    assert reference.rgba.shape == (64, 64, 4) and reference.rgba.dtype == np.float32
    assert reference.way == "transparency" and reference.depth is None and reference.normals is None
    seen = np.asarray(Image.open(tmp_path / "seen.png"))
    assert seen.shape == (256, 256, 3)
    solid = reference.rgba[..., 3] == 1.0
    assert np.abs(seen[2::4, 2::4][solid] / 255.0 - reference.rgba[solid][:, :3]).max() < 0.003
    assert len(np.unique(seen[:, 0])) == 2  # the checker
    assert {each.name for each in tmp_path.iterdir()} == {"star.png", "seen.png"}


def test_a_preview_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    with pytest.raises(OutputError):
        prepare(path, 64, preview=tmp_path / "none" / "seen.png", **CAMERA)
    assert [each.name for each in tmp_path.iterdir()] == ["star.png"]


def test_a_plain_background_goes_all_the_way(tmp_path: Path) -> None:
    image, _, _ = picture_of("blob", "gradient", 128)
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=95)
    reference = prepare(tmp_path / "a.jpg", 64, **CAMERA)
    true, colour = object_matte("blob", 128)
    wanted = frame(cutout(np.concatenate([colour, true[..., None]], axis=-1)), 64, **CAMERA).rgba
    assert reference.way == "plain"
    assert np.abs(reference.rgba[..., 3] - wanted[..., 3]).mean() < 0.01
    assert np.abs(over(reference.rgba, 0.5) - over(wanted, 0.5)).mean() < 0.01
    again = cut_out(read_picture(tmp_path / "a.jpg"), "plain")
    assert np.array_equal(frame(again, 64, **CAMERA).rgba, reference.rgba)


def maps_of_a_ball(size: int = 96) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Opacity, depth (larger is farther) and normals of a ball that fills the picture's middle."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2.0 - 1.0
    inside = np.hypot(x, y) < 0.6
    height = np.sqrt(np.clip(0.36 - x * x - y * y, 0.0, None))
    normals = np.stack([x, -y, height], axis=-1) / 0.6
    return inside, np.where(inside, 3.0 - height, np.nan), np.where(inside[..., None], normals, 0.0)


def save_ball(folder: Path, kind: str) -> tuple[Path, Path, Path]:
    inside, depth, normals = maps_of_a_ball()
    rgba = np.full((96, 96, 4), 255, np.uint8)
    rgba[..., 3] = inside * 255
    Image.fromarray(rgba).save(folder / "ball.png")
    names = {"png": ("d.png", "n.png"), "tif": ("d.tif", "n.tif"), "npy": ("d.npy", "n.npy")}[kind]
    if kind == "npy":
        np.save(folder / names[0], depth)
        np.save(folder / names[1], normals.astype(np.float32))
    else:
        scaled = np.where(inside, (depth - 2.0) * 65535.0, 0.0)
        levels = np.nan_to_num(scaled).astype(np.uint16) if kind == "png" else depth.astype(np.float32)
        Image.fromarray(levels).save(folder / names[0])
        Image.fromarray(np.round((normals + 1.0) * 127.5).astype(np.uint8)).save(folder / names[1])
    return folder / "ball.png", folder / names[0], folder / names[1]


@pytest.mark.parametrize("kind", ["png", "tif", "npy"])
@pytest.mark.parametrize("framing", ["object", "as-is"])
def test_depth_and_normals_follow_the_frame(tmp_path: Path, kind: str, framing: str) -> None:
    path, depth, normals = save_ball(tmp_path, kind)
    seen = prepare(path, 80, framing=framing, depth=depth, normals=normals, preview=tmp_path / "seen.png", **CAMERA)  # pyright: ignore[reportArgumentType]
    assert seen.depth is not None and seen.normals is not None
    inside = seen.rgba[..., 3] >= 0.5
    assert np.array_equal(np.isfinite(seen.depth), inside) or np.isfinite(seen.depth)[inside].mean() > 0.97
    assert not np.isfinite(seen.depth[~inside]).any()
    extent = ball_extent(**CAMERA) if framing == "object" else 0.6
    y, x = (np.mgrid[:80, :80] + 0.5) / 40.0 - 1.0
    wanted = np.stack([x, -y, np.sqrt(np.clip(extent**2 - x * x - y * y, 0, None))], axis=-1) / extent
    core = np.hypot(x, y) < 0.85 * extent
    length = np.linalg.norm(seen.normals, axis=-1)
    assert np.allclose(length[length > 0], 1.0, atol=1e-5) and np.all(length[~inside] == 0.0)
    assert np.sum(seen.normals * wanted, axis=-1)[core].min() > 0.99
    assert np.corrcoef(seen.depth[core], -wanted[..., 2][core])[0, 1] > 0.995
    assert np.asarray(Image.open(tmp_path / "seen.png")).shape == (320, 960, 3)


def test_depth_does_not_mix_across_edges(tmp_path: Path) -> None:
    """Two planes: every depth that is seen is one of the two."""
    rgba = np.full((64, 64, 4), 255, np.uint8)
    rgba[:8, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    depth = np.full((200, 200), 1.0)
    depth[:, 100:] = 9.0
    np.save(tmp_path / "d.npy", depth)
    picture = read_picture(tmp_path / "a.png")
    maps = read_maps(picture, depth=tmp_path / "d.npy")
    seen = frame(cutout(picture.rgba), 50, framing="as-is", maps=maps, **CAMERA).depth
    assert seen is not None and set(np.unique(seen[np.isfinite(seen)])) == {1.0, 9.0}
    assert np.isnan(seen[:5]).all()


def test_preview_of_unknown_maps() -> None:
    shown = preview_image(
        np.zeros((8, 8, 4), np.float32), np.full((8, 8), np.nan, np.float32), np.zeros((8, 8, 3), np.float32)
    )
    assert shown.shape == (8, 24, 3) and np.all(shown[:, 8:] == 0.0)


def test_bad_maps(tmp_path: Path) -> None:
    path, depth, normals = save_ball(tmp_path, "png")
    picture = read_picture(path)
    np.save(tmp_path / "wide.npy", np.arange(200.0).reshape(10, 20))
    np.save(tmp_path / "flat.npy", np.ones((96, 96)))
    np.save(tmp_path / "nan.npy", np.full((96, 96), np.nan))
    np.save(tmp_path / "text.npy", np.full((96, 96), "a"))
    np.save(tmp_path / "object.npy", np.full((96, 96), None), allow_pickle=True)
    np.save(tmp_path / "two.npy", np.ones((96, 96, 2)))
    (tmp_path / "huge.npy").write_bytes(
        b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999, 99999), }".ljust(118)
    )
    (tmp_path / "cut.npy").write_bytes((tmp_path / "flat.npy").read_bytes()[:500])
    Image.new("L", (96, 96), 9).save(tmp_path / "grey.png")
    Image.new("RGB", (96, 96), (0, 0, 0)).save(tmp_path / "black.png")
    bad_depth = {
        "none.png": "There is no file",
        "wide.npy": "as wide as high",
        "flat.npy": "flat or empty",
        "nan.npy": "flat or empty",
        "text.npy": "no map of numbers",
        "object.npy": "no array",
        "two.npy": "no map of numbers",
        "huge.npy": "no array|shape",
        "cut.npy": "no array",
        "grey.png": "8 bits",
        normals.name: "8 bits or colours",
    }
    for name, message in bad_depth.items():
        with pytest.raises(PictureError, match=message):
            read_maps(picture, depth=tmp_path / name)
    bad_normals = {"two.npy": "channels", "grey.png": "no colours", "black.png": "no normals", "flat.npy": "no map"}
    for name, message in (bad_normals | {depth.name: "no colours"}).items():
        with pytest.raises(PictureError, match=message):
            read_maps(picture, normals=tmp_path / name)


def test_a_cut_with_doubts_writes_nothing(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match="cannot be told from its background"):
        prepare(tmp_path / "a.png", 64, preview=tmp_path / "seen.png", **CAMERA)
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]


def test_the_room_needs_no_rembg_and_no_torch() -> None:
    import subprocess

    code = "import sys, backend.picture; print(sorted({'torch', 'rembg', 'onnxruntime', 'pooch'} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert math.isclose(ball_extent(3.0, 40.0), 0.8852, abs_tol=1e-3)
