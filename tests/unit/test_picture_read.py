"""Pictures' files: every kind that is read, and one clear error for every kind that is not."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from backend.errors import PictureError
from backend.picture import prepare, read_picture
from backend.picture.colour import linear_to_srgb, srgb_to_linear
from backend.picture.read import WORKING

SIZE = (48, 40)
"""Width and height."""


def scene(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """A red box on white, with a blue corner at the upper left."""
    image = Image.new("RGB", size, (255, 255, 255))
    image.paste((200, 30, 20), (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
    image.paste((10, 20, 220), (0, 0, 6, 6))
    return image.convert(mode)


def png(width: int, height: int, *, depth: int = 8, kind: int = 2, data: bytes | None = None) -> bytes:
    """A PNG file by hand, for sizes and depths that Pillow does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data or b"")) + chunk(b"IEND", b"")
    )


def centre(rgba: np.ndarray) -> np.ndarray:
    return rgba[rgba.shape[0] // 2, rgba.shape[1] // 2]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_kinds_of_files(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"a.{suffix}"
    scene(mode).save(path)
    picture = read_picture(path)
    assert (picture.width, picture.height, picture.name) == (*SIZE, path.name)
    assert picture.rgba.dtype == np.float32 and picture.rgba.shape == (40, 48, 4)
    wanted = np.asarray(scene(mode).convert("RGB"))[20, 24] / 255.0
    assert np.abs(centre(picture.rgba)[:3] - wanted).max() < 0.03
    assert np.all(picture.rgba[..., 3] == 1.0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "CMYK", "YCbCr", "LAB", "I;16"])
def test_modes(tmp_path: Path, mode: str) -> None:
    grey = mode in {"LA", "1", "I;16"}
    image = scene()
    if mode == "I;16":
        image = Image.fromarray(np.asarray(scene("L")).astype(np.uint16) * 257)
    elif mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        image = ImageCms.applyTransform(image, transform)
        assert image is not None
    elif mode == "P":
        image = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    elif mode == "1":
        image = image.convert("1", dither=Image.Dither.NONE)
    else:
        image = image.convert(mode)
    path = tmp_path / ("a.tif" if mode in {"CMYK", "YCbCr", "LAB"} else "a.png")
    image.save(path)
    wanted = np.array([200, 30, 20]) / 255.0
    if grey:
        wanted = np.full(3, np.asarray(scene("L"))[20, 24] / 255.0 if mode != "1" else 0.0)
    got = centre(read_picture(path).rgba)
    assert np.abs(got[:3] - wanted).max() < 0.02
    assert got[3] == 1.0


def test_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    scene("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(centre(read_picture(tmp_path / "a.jpg").rgba)[:3] - np.array([200, 30, 20]) / 255).max() < 0.06


def test_transparency_of_palettes_and_colour_keys(tmp_path: Path) -> None:
    palette = scene().convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    white = int(np.asarray(palette)[-1, -1])
    palette.save(tmp_path / "p.png", transparency=white)
    scene().save(tmp_path / "key.png", transparency=(255, 255, 255))
    scene("L").save(tmp_path / "grey.png", transparency=255)
    deep = np.asarray(scene("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png", transparency=65535)
    palette.save(tmp_path / "g.gif", transparency=white)
    for name in ("p.png", "key.png", "grey.png", "deep.png", "g.gif"):
        rgba = read_picture(tmp_path / name).rgba
        assert rgba[-1, -1, 3] == 0.0 and centre(rgba)[3] == 1.0, name


def test_alpha_is_straight_and_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (40, 48, 4), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png").rgba, levels.astype(np.float32) / np.float32(255))


def test_sixteen_bits(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    assert np.allclose(read_picture(tmp_path / "grey.png").rgba[..., 1], ramp / 65535.0, atol=1e-6)
    rows = np.stack([ramp, ramp[::-1], ramp.T], axis=-1).astype(">u2")
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    (tmp_path / "rgb.png").write_bytes(png(64, 64, depth=16, data=data))
    got = read_picture(tmp_path / "rgb.png").rgba[..., :3]
    assert np.abs(got - rows.astype(np.float64) / 65535.0).max() < 1.01 / 255.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, orientation: int) -> None:
    upright = scene()
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # undoes the 270° that the viewer must turn
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turns[orientation]) if orientation in turns else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    picture = read_picture(tmp_path / "a.png")
    assert (picture.width, picture.height) == SIZE
    assert np.array_equal(np.round(picture.rgba[..., :3] * 255), np.asarray(upright))


def test_a_damaged_exif_block_is_ignored(tmp_path: Path) -> None:
    scene().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x99" * 40)
    assert read_picture(tmp_path / "a.jpg").width == SIZE[0]


def gamma_profile() -> bytes:
    """An RGB profile like sRGB, but with linear curves: the curves of every channel are replaced."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(struct.unpack(">I", data[128:132])[0]):
        tag, offset, _ = struct.unpack(">4sII", data[132 + 12 * index : 144 + 12 * index])
        if tag in {b"rTRC", b"gTRC", b"bTRC"}:
            data[offset : offset + 12] = b"curv" + bytes(8)  # no entries: the identity
    return bytes(data)


def test_profiles_are_converted_to_srgb(tmp_path: Path) -> None:
    linear = np.zeros((64, 64, 4), np.uint8)
    linear[..., :3] = np.arange(64, dtype=np.uint8)[None, :, None] * 4
    linear[..., 3] = np.arange(64, dtype=np.uint8)[:, None] * 4
    Image.fromarray(linear).save(tmp_path / "a.png", icc_profile=gamma_profile())
    rgba = read_picture(tmp_path / "a.png").rgba
    assert np.abs(rgba[..., :3] - linear_to_srgb(linear[..., :3] / 255.0)).max() < 0.012
    assert np.array_equal(rgba[..., 3], linear[..., 3].astype(np.float32) / np.float32(255))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(linear).save(tmp_path / "b.png", icc_profile=srgb)
    assert np.abs(read_picture(tmp_path / "b.png").rgba - linear / 255.0).max() < 0.006


@pytest.mark.parametrize("profile", [b"nonsense", b"\0" * 200])
def test_a_damaged_profile_is_ignored(tmp_path: Path, profile: bytes) -> None:
    scene().save(tmp_path / "a.png", icc_profile=profile)
    assert np.abs(centre(read_picture(tmp_path / "a.png").rgba)[:3] - np.array([200, 30, 20]) / 255).max() < 1e-6


def test_a_profile_for_other_channels_is_ignored(tmp_path: Path) -> None:
    scene("CMYK").save(tmp_path / "a.tif", icc_profile=gamma_profile())
    assert np.abs(centre(read_picture(tmp_path / "a.tif").rgba)[:3] - np.array([200, 30, 20]) / 255).max() < 0.01


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_animated_files_show_their_first_frame(tmp_path: Path, suffix: str) -> None:
    other = Image.new("RGB", SIZE, (0, 255, 0))
    scene().save(tmp_path / f"a.{suffix}", save_all=True, append_images=[other, other])
    assert np.abs(centre(read_picture(tmp_path / f"a.{suffix}").rgba)[:3] - np.array([200, 30, 20]) / 255).max() < 0.06


def test_large_pictures_are_reduced_as_light_is(tmp_path: Path) -> None:
    """Thin black and white stripes average to the grey of half the light, and the clear half gives no fringe."""
    levels = np.zeros((64, 6144, 4), np.uint8)
    levels[:, ::2, :3] = 255
    levels[:32, :, 3] = 255
    levels[32:, :, 1] = 255  # invisible green
    Image.fromarray(levels).save(tmp_path / "a.png", compress_level=1)
    picture = read_picture(tmp_path / "a.png")
    assert (picture.width, picture.height) == (6144, 64) and picture.rgba.shape == (16, WORKING, 4)
    solid = picture.rgba[:7, 2:-2]
    assert np.abs(solid[..., :3] - linear_to_srgb(0.5)).max() < 0.01
    edge = picture.rgba[7:9, 2:-2]
    assert np.abs(edge[edge[..., 3] > 0.01][:, :3] - linear_to_srgb(0.5)).max() < 0.01
    assert np.all(picture.rgba[9:] == 0.0)


def test_srgb_there_and_back() -> None:
    value = np.linspace(0, 1, 4096, dtype=np.float32)
    assert np.abs(linear_to_srgb(srgb_to_linear(value)) - value).max() < 2e-6
    assert abs(float(srgb_to_linear(0.5)) - 0.21404) < 1e-5


def truncated(path: Path, kind: str, share: float) -> None:
    buffer = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, kind)
    path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "There is no file"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "a text": (lambda path: path.write_text("I am no picture.\n" * 99), "is not a picture"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "a pipe": (os.mkfifo, "is not a file"),
    "cut off PNG": (lambda path: truncated(path, "PNG", 0.5), "damaged or cut off"),
    "cut off JPEG": (lambda path: truncated(path, "JPEG", 0.5), "damaged or cut off"),
    "cut off WebP": (lambda path: truncated(path, "WEBP", 0.5), "damaged or cut off|is not a picture"),
    "cut off BMP": (lambda path: truncated(path, "BMP", 0.5), "damaged or cut off"),
    "cut off TIFF": (lambda path: truncated(path, "TIFF", 0.5), "damaged or cut off|is not a picture"),
    "one pixel": (lambda path: scene("RGB").resize((1, 1)).save(path), "1 × 1 pixels; 32"),
    "small": (lambda path: Image.new("RGB", (31, 400)).save(path), "31 × 400 pixels; 32"),
    "very wide": (lambda path: Image.new("L", (20_000, 10)).save(path), "20000 × 10 pixels; 8192"),
    "large": (lambda path: path.write_bytes(png(8193, 8193)), "8193 × 8193 pixels; 8192"),
    "a bomb": (lambda path: path.write_bytes(png(60_000, 60_000)), "larger than 8192|60000 × 60000"),
    "a bomb of text": (
        lambda path: path.write_bytes(
            png(64, 64)[:33] + struct.pack(">I", 40_000) + b"zTXt" + b"a\0\0" + zlib.compress(bytes(1 << 25))
        ),
        "damaged|is not a picture",
    ),
    "another format": (lambda path: Image.new("RGB", (64, 64)).save(path, "PPM"), "is not a picture"),
    "clear": (lambda path: Image.new("RGBA", (64, 64), (9, 9, 9, 0)).save(path), "fully transparent"),
    "one colour": (lambda path: Image.new("RGB", (64, 64), (9, 99, 9)).save(path), "all one colour"),
    "black and clear": (lambda path: Image.new("LA", (64, 64), (0, 0)).save(path), "fully transparent"),
    "measurements": (lambda path: Image.new("F", (64, 64)).save(path, "TIFF"), "32 bits"),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.filterwarnings("error")
def test_bad_pictures(tmp_path: Path, what: str) -> None:
    make, message = BAD[what]
    path = tmp_path / "picture.png"
    make(path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(PictureError, match=message) as caught:
        prepare(path, 32, distance=3.0, field_of_view=40.0, preview=tmp_path / "seen.png")
    assert caught.value.code == "picture" and caught.value.hint
    assert "picture.png" in caught.value.message and "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_unreadable_names(tmp_path: Path) -> None:
    with pytest.raises(PictureError):
        read_picture(tmp_path / ("a" * 400))
    with pytest.raises(PictureError):
        read_picture("a\0b.png")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user who may not read everything")
def test_a_forbidden_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    scene().save(path)
    path.chmod(0)
    with pytest.raises(PictureError, match="may not be read"):
        read_picture(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"]),
    at=st.floats(0, 1),
    junk=st.binary(min_size=1, max_size=40),
    cut=st.booleans(),
)
@example(kind="TIFF", at=0.0, junk=b"II*\0\xff\xff\xff\x7f", cut=False)
def test_a_damaged_file_is_a_picture_or_an_error(tmp_path: Path, kind: str, at: float, junk: bytes, cut: bool) -> None:
    buffer = io.BytesIO()
    scene().save(buffer, kind)
    data = buffer.getvalue()
    start = int(at * len(data))
    path = tmp_path / "a.bin"
    path.write_bytes(data[:start] + junk + (b"" if cut else data[start + len(junk) :]))
    with contextlib.suppress(PictureError):
        rgba = read_picture(path).rgba
        assert np.isfinite(rgba).all() and rgba.min() >= 0.0 and rgba.max() <= 1.0
