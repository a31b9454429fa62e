"""Telling objects from backgrounds, measured against known mattes, and what must be refused."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from backend.errors import PictureError
from backend.picture import Picture, Way, cut_out
from backend.picture.background import find_background
from backend.picture.colour import linear_to_srgb, over, srgb_to_linear
from backend.picture.masks import eroded
from backend.picture.neural import installed_model
from tests.unit.mattes import BACKGROUNDS, SHAPES, background, object_matte, picture_of

LIMITS = {
    "strong noise": (0.95, 0.007),
    "jpeg": (0.97, 0.004),
}
"""Least overlap (soft IoU) and largest mean error of opacity, where a background is allowed more than the usual."""
USUAL = (0.98, 0.003)


@pytest.fixture(autouse=True)
def _without_rembg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "models"))


def picture(srgb: np.ndarray, alpha: np.ndarray | None = None) -> Picture:
    height, width = srgb.shape[:2]
    cover = np.ones((height, width)) if alpha is None else alpha
    rgba = np.concatenate([srgb, cover[..., None]], axis=-1).astype(np.float32)
    return Picture("a.png", rgba, width, height)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Soft intersection over union."""
    return float(np.minimum(a, b).sum() / np.maximum(a, b).sum())


@pytest.mark.parametrize("kind", BACKGROUNDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_mattes(shape: str, kind: str) -> None:
    image, true, colour = picture_of(shape, kind, 112)
    cutout = cut_out(picture(image / 255.0))
    least, error = LIMITS.get(kind, USUAL)
    alpha = cutout.rgba[..., 3]
    assert cutout.way == "plain"
    assert overlap(alpha, true) > least
    assert np.abs(alpha - true).mean() < error
    edge = (true > 0.2) & (true < 0.98) & (alpha > 0.2)
    stained = np.abs(image / 255.0 - colour)[edge].mean()
    clean = np.abs(cutout.rgba[..., :3] - colour)[edge].mean()
    assert clean < 0.08 and clean < 0.5 * stained


@pytest.mark.parametrize("kind", ["white", "gradient"])
def test_mattes_of_pictures_mixed_in_srgb(kind: str) -> None:
    """As paint programs mix: the edge's opacity is then a little off, the object is not."""
    image, true, _ = picture_of("blob", kind, 160, linear=False)
    alpha = cut_out(picture(image / 255.0)).rgba[..., 3]
    assert overlap(alpha, true) > 0.97 and np.abs(alpha - true).mean() < 0.003


def test_white_inside_stays_before_white() -> None:
    image, true, _ = picture_of("blob", "white", 160)
    eye = np.all(image == 255, axis=-1) & (true == 1.0)
    assert np.count_nonzero(eye) > 80
    assert np.all(cut_out(picture(image / 255.0)).rgba[..., 3][eye] == 1.0)


def test_no_fringe_before_another_background() -> None:
    """Dark object, white background, shown before black: no pixel along the edge is lighter than the object."""
    true, _ = object_matte("blob", 160)
    light = true[..., None] * srgb_to_linear([0.2, 0.1, 0.1]) + (1.0 - true[..., None])
    cutout = cut_out(picture(np.round(linear_to_srgb(light) * 255) / 255))
    assert over(cutout.rgba, 0.0).max() < 0.22
    assert over(cutout.rgba, 1.0)[eroded(true == 1.0)].max() < 0.22


def test_out_of_focus() -> None:
    true, colour = object_matte("blob", 200)
    true = ndimage.gaussian_filter(true, 2.0)
    light = true[..., None] * srgb_to_linear(colour) + (1.0 - true[..., None]) * srgb_to_linear([0.9, 0.95, 1.0])
    alpha = cut_out(picture(np.round(linear_to_srgb(light) * 255) / 255)).rgba[..., 3]
    assert overlap(alpha, true) > 0.97 and np.abs(alpha - true).mean() < 0.006


@pytest.mark.parametrize("albedo", [(0.8, 0.5, 0.2), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)])
def test_a_soft_shadow_belongs_to_the_background(albedo: tuple[float, float, float]) -> None:
    y, x = np.mgrid[:200, :200] / 100.0 - 1.0
    radius = np.hypot(x, y)
    true = ndimage.gaussian_filter((radius < 0.5).astype(float), 0.7)
    facing = 2.0 * np.sqrt(np.clip(0.25 - radius**2, 0, None))
    shade = np.clip(0.2 + 0.8 * (0.6 * facing - 0.6 * y - 0.4 * x), 0.03, 1.0)[..., None] * np.array(albedo)
    shadow = 0.93 * (1.0 - 0.5 * np.exp(-((x / 0.5) ** 2 + ((y - 0.5) / 0.08) ** 2)))[..., None]
    srgb = linear_to_srgb(true[..., None] * shade + (1.0 - true[..., None]) * shadow)
    srgb = srgb + 0.004 * np.random.default_rng(0).normal(size=srgb.shape)
    alpha = cut_out(picture(np.round(np.clip(srgb, 0, 1) * 255) / 255)).rgba[..., 3]
    assert overlap(alpha, true) > 0.985


def test_dust_is_no_object() -> None:
    image, _, _ = picture_of("blob", "white", 160)
    image[10:12, 10:13] = 90
    assert cut_out(picture(image / 255.0)).rgba[5:15, 5:15, 3].max() == 0.0


def test_transparency_is_used_as_it_is() -> None:
    true, colour = object_matte("star", 120)
    cutout = cut_out(picture(colour, true))
    assert cutout.way == "transparency" and cutout.border_share == 0.0
    assert np.array_equal(cutout.rgba[..., 3], true) and np.array_equal(cutout.rgba[..., :3], colour)
    assert abs(cutout.coverage - (true >= 0.5).mean()) < 1e-6


def test_round_corners_are_no_cut_out() -> None:
    """A card with clear corners before white: its corners count as background, and its transparency does not."""
    image, true, _ = picture_of("blob", "white", 112)
    image = image / 255.0
    y, x = np.mgrid[:112, :112]
    away = np.hypot(np.maximum(np.abs(x - 55.5) - 41.5, 0), np.maximum(np.abs(y - 55.5) - 41.5, 0))
    card = (away < 14.0).astype(float)
    image[card == 0.0] = 0.0
    cutout = cut_out(picture(image, card))
    assert cutout.way == "plain" and overlap(cutout.rgba[..., 3], true) > 0.985


def test_the_surface_is_that_of_the_background() -> None:
    """A known quadratic in CIELAB, with an object over a third of the border, is found."""
    y, x = (np.mgrid[:100, :100] + 0.5) / 50.0 - 1.0
    lab = np.stack([70 + 8 * x - 5 * y + 3 * x * x, 4 * y + 2 * x * y, -6 + 3 * x - 2 * y * y], axis=-1)
    lab = (lab + 0.5 * np.random.default_rng(0).normal(size=lab.shape)).astype(np.float32)
    seen = lab.copy()
    seen[60:, :70] = (40.0, 30.0, 20.0)
    found = find_background(seen, np.zeros((100, 100), np.bool_))
    assert np.abs(found.surface.colour(100, 100) - lab)[:60].mean() < 0.6
    assert found.outside[:58].mean() > 0.999 and found.outside[62:, :68].mean() == 0.0
    assert 0.5 < found.border_share < 0.75


def stripes() -> np.ndarray:
    return np.repeat((np.arange(128) // 4 % 2 * 0.8 + 0.1)[None, :, None], 128, axis=0) * np.ones(3)


def coins() -> np.ndarray:
    y, x = np.mgrid[:128, :128]
    return np.where((np.hypot(x % 32 - 16, y % 32 - 16) < 9)[..., None], [0.7, 0.5, 0.1], [1.0, 1.0, 1.0])


def full() -> np.ndarray:
    image = np.full((128, 128, 3), 0.9)
    image[1:-1, 1:-1] = (0.2, 0.3, 0.7)
    return image


def fog() -> np.ndarray:
    """A patch that rises out of its background without an edge."""
    y, x = np.mgrid[:128, :128] / 64.0 - 1.0
    grey = 0.5 + 0.12 * np.exp(-6.0 * (x**2 + y**2)) + 0.005 * np.random.default_rng(0).normal(size=x.shape)
    return np.repeat(grey[..., None], 3, axis=-1)


def tiny() -> np.ndarray:
    image = np.full((128, 128, 3), 0.9)
    image[60:66, 60:66] = (0.2, 0.3, 0.7)
    return image


UNSURE = {
    "noise": (lambda: np.random.default_rng(0).random((128, 128, 3)), "spreads"),
    "stripes": (stripes, "changes|border"),
    "coins": (coins, "16 parts"),
    "full": (full, "of the border|of the picture"),
    "fog": (fog, "stands out"),
    "tiny": (tiny, "6 pixels"),
    "halves": (lambda: np.repeat(np.repeat([[[0.3, 0.5, 0.9]], [[0.3, 0.6, 0.2]]], 64, 0), 128, 1), "."),
}


@pytest.mark.parametrize("what", UNSURE)
def test_what_is_not_sure_is_refused(what: str) -> None:
    make, why = UNSURE[what]
    with pytest.raises(PictureError, match=why) as caught:
        cut_out(picture(make()))
    assert "transparency" in caught.value.hint and "plain background" in caught.value.hint
    assert "rembg" in caught.value.hint


def test_a_way_that_is_asked_for_is_the_only_one() -> None:
    image, _, _ = picture_of("blob", "white", 96)
    ways: list[tuple[Way, str]] = [("transparency", "nothing is transparent"), ("rembg", "not installed")]
    for way, why in ways:
        with pytest.raises(PictureError, match=why):
            cut_out(picture(image / 255.0), way)


def test_same_picture_same_cut() -> None:
    image, _, _ = picture_of("star", "strong noise", 96)
    assert np.array_equal(cut_out(picture(image / 255.0)).rgba, cut_out(picture(image / 255.0)).rgba)


FAKE = """
    import os
    import sys
    import numpy as np
    import pooch
    from PIL import Image

    {trouble}

    class Session:
        def __init__(self, name):
            home = os.environ["U2NET_HOME"]
            url = "https://example.invalid/" + name
            self.path = pooch.retrieve(url, "md5:1", fname=name + ".onnx", path=home, progressbar=True)

    def new_session(name, providers=None):
        assert providers == ["CPUExecutionProvider"]
        return Session(name)

    def remove(image, session, only_mask):
        assert only_mask and os.path.isfile(session.path)
        red = np.asarray(image)[..., 0] > 150
        return Image.fromarray((red * 255).astype(np.uint8)).{result}
"""
POOCH = """
    def retrieve(*_, **__):
        raise AssertionError("would go to the network")
"""


def install_rembg(
    folder: Path, monkeypatch: pytest.MonkeyPatch, trouble: str = "", result: str = "copy()", *, model: bool = True
) -> None:
    """A package of that name and its model's file; as rembg does, it asks pooch for the file."""
    (folder / "rembg.py").write_text(textwrap.dedent(FAKE.format(trouble=trouble, result=result)))
    (folder / "pooch.py").write_text(textwrap.dedent(POOCH))
    monkeypatch.syspath_prepend(str(folder))
    for name in ("rembg", "pooch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (folder / "models").mkdir()
    (folder / "models" / "u2net.onnx").write_bytes(b"model" if model else b"")


def red_before_a_meadow() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    patches = ndimage.gaussian_filter(rng.normal(size=(96, 96, 3)), (4, 4, 0))
    behind = np.clip(0.3 + patches / patches.std() * [0.05, 0.25, 0.15], 0, 0.55)
    true, _ = object_matte("blob", 96)
    solid = true >= 0.5
    return np.where(solid[..., None], [0.9, 0.1, 0.1], behind), solid


def test_rembg_is_used_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_rembg(tmp_path, monkeypatch)
    assert installed_model() == "u2net"
    srgb, solid = red_before_a_meadow()
    cutout = cut_out(picture(srgb))
    assert cutout.way == "rembg" and np.array_equal(cutout.rgba[..., 3] > 0.5, solid)
    import pooch  # pyright: ignore[reportMissingImports]

    with pytest.raises(AssertionError, match="network"):
        pooch.retrieve()  # it was put back


def test_rembg_without_its_model_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_rembg(tmp_path, monkeypatch, trouble="raise AssertionError('imported')", model=False)
    assert installed_model() is None
    with pytest.raises(PictureError, match="rembg or its model is not installed"):
        cut_out(picture(red_before_a_meadow()[0]))
    assert "rembg" not in sys.modules


@pytest.mark.parametrize(
    "trouble", ["sys.exit(1)", "raise RuntimeError('no')", "import no_such_runtime", "raise OSError", "1 / 0"]
)
def test_whatever_rembg_raises_is_one_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    install_rembg(tmp_path, monkeypatch, trouble)
    with pytest.raises(PictureError, match="rembg failed"):
        cut_out(picture(red_before_a_meadow()[0]))
    image, true, _ = picture_of("blob", "white", 96)
    cutout = cut_out(picture(image / 255.0))
    assert cutout.way == "plain" and overlap(cutout.rgba[..., 3], true) > 0.985


@pytest.mark.parametrize(
    ("result", "why"),
    [("point(lambda v: 128)", "half transparent"), ("resize((7, 7))", "another size"), ("x", "failed")],
)
def test_masks_of_rembg_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: str, why: str) -> None:
    install_rembg(tmp_path, monkeypatch, result=result)
    with pytest.raises(PictureError, match=why):
        cut_out(picture(red_before_a_meadow()[0]))


def test_backgrounds_of_the_tests_differ() -> None:
    rng = np.random.default_rng(0)
    seen = {kind: background(kind, 16, rng).tobytes() for kind in BACKGROUNDS if kind != "jpeg"}
    assert len(set(seen.values())) == len(seen)
