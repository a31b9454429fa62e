"""From a picture's file to straight sRGB with opacity: what Pillow reads, upright, in sRGB, of a bounded size.

JPEG, PNG, WebP, TIFF, BMP and GIF; the first frame of what moves. Grey is read with 16 bits; of colours with 16 bits a
channel Pillow keeps the upper 8.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..errors import PictureError
from .colour import Floats, srgb_to_linear, unpremultiply
from .resample import weights

SMALLEST = 32
LARGEST = 8192
WORKING = 1536
"""Longest side of what is kept: half as much again as the largest image the optimizer renders."""
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")

Levels = NDArray[np.uint8] | NDArray[np.uint16]

_SAVE_AS = "Save it anew as PNG, JPEG, WebP, TIFF or BMP."
_STRIP = 256
"""Rows that are reduced at a time, to keep memory low."""


@dataclass(frozen=True)
class Picture:
    """A picture in memory."""

    name: str
    """The file's name, for people."""
    rgba: Floats
    """[H, W, 4] straight sRGB and opacity in [0, 1]; no side is longer than WORKING."""
    width: int
    """Of the file, upright."""
    height: int
    """The same."""


def read_picture(path: str | Path) -> Picture:
    """Read a picture's file: upright, converted to sRGB by its profile, reduced in linear light if it is large.

    Sides from 32 to 8192 pixels. Raises PictureError, with one sentence, for whatever is no such picture.
    """
    path = Path(path)
    image = load_image(path)
    colour, alpha = _decode(image, path.name)
    height, width = colour.shape[:2]
    return Picture(path.name, _working_copy(colour, alpha), width, height)


def load_image(path: Path) -> Image.Image:
    """The first frame of a picture's file, decoded and turned upright. Raises PictureError."""
    check_file(path)
    name = path.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
                _check_size(image.size, name)
                image.load()
                return _upright(image)
        except PictureError:
            raise
        except PermissionError:
            raise PictureError(f"{name} may not be read.", "Check the file's permissions.") from None
        except Image.DecompressionBombError:
            raise PictureError(
                f"{name} is larger than {LARGEST} pixels a side.", "Make it smaller: 1024 pixels a side are plenty."
            ) from None
        except UnidentifiedImageError:
            raise PictureError(f"{name} is not a picture that can be read.", _SAVE_AS) from None
        except MemoryError:
            raise PictureError(f"{name} does not fit into memory.", "Make the picture smaller.") from None
        except Exception:  # noqa: BLE001  (decoders raise whatever a damaged file makes them stumble over)
            raise PictureError(f"{name} is damaged or cut off.", f"Copy or download it again, or: {_SAVE_AS}") from None


def check_file(path: Path) -> None:
    """Raise PictureError unless ``path`` is a file with something in it."""
    hint = "Choose a picture's file."
    try:
        if path.is_dir():
            raise PictureError(f"{path} is a folder.", hint)
        if not path.exists():
            raise PictureError(f"There is no file {path}.", hint)
        if not path.is_file():
            raise PictureError(f"{path} is not a file.", hint)
        if path.stat().st_size == 0:
            raise PictureError(f"{path.name} is empty.", "Copy or download it again.")
    except OSError as error:
        raise PictureError(f"{path} cannot be read ({error.strerror or error}).", hint) from None


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if max(size) > LARGEST:
        raise PictureError(
            f"{name} has {width} × {height} pixels; {LARGEST} a side are the most.",
            "Make it smaller: 1024 pixels a side are plenty.",
        )
    if min(size) < SMALLEST:
        raise PictureError(
            f"{name} has {width} × {height} pixels; {SMALLEST} a side are the least.", "Choose a larger picture."
        )


def _upright(image: Image.Image) -> Image.Image:
    """Turned as the camera was held (EXIF); a damaged EXIF block is no reason to refuse the picture."""
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image.copy()


def _decode(image: Image.Image, name: str) -> tuple[Levels, Levels | None]:
    """Colour [H, W, 3] in sRGB and opacity [H, W], None where all is opaque; 8 or 16 bits."""
    if image.mode.startswith("I;16"):
        return _decode_deep_grey(image)
    if image.mode in {"I", "F"}:
        raise PictureError(f"{name} holds measurements with 32 bits, not colours.", "Save it with 8 or 16 bits.")
    profile = _profile(image)
    if image.mode in {"La", "RGBa", "PA", "P"} or "transparency" in image.info:
        image = image.convert({"La": "LA"}.get(image.mode, "RGBA"))
    alpha = np.asarray(image.getchannel("A")) if "A" in image.getbands() and image.mode != "LAB" else None
    if image.mode in {"RGBA", "LA", "1"}:
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    return np.asarray(_to_srgb(image, profile)), alpha


def _decode_deep_grey(image: Image.Image) -> tuple[Levels, Levels | None]:
    """Sixteen bits of grey; the profile is asked at 256 of them."""
    grey = np.asarray(image).astype(np.uint16)
    transparent = image.info.get("transparency")
    alpha = np.where(grey == transparent, 0, 65535).astype(np.uint16) if isinstance(transparent, int) else None
    profile = _profile(image)
    if profile is None:
        return np.repeat(grey[..., None], 3, axis=-1), alpha
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    curve = np.asarray(_to_srgb(ramp, profile))[0].astype(np.float64) * 257.0
    at = np.arange(65536) / 257.0
    table = np.stack([np.interp(at, np.arange(256), curve[:, i]) for i in range(3)], axis=-1)
    return np.round(table).astype(np.uint16)[grey], alpha


def _profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """The embedded profile, if there is one that can be read."""
    data = image.info.get("icc_profile")
    if not data:
        return None
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(data))
    except (OSError, TypeError, ValueError, ImageCms.PyCMSError):
        return None


def _to_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> Image.Image:
    """RGB in sRGB. A profile that does not fit the picture's channels says nothing about them and is left out."""
    if image.mode == "LAB":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    spaces = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
    description: Any = None if profile is None else profile.profile
    mode = None if description is None else spaces.get(description.xcolor_space.strip())
    if mode == "RGB" and image.mode in {"L", "YCbCr"}:
        image = image.convert("RGB")
    if profile is None or mode != image.mode:
        return image.convert("RGB")
    try:
        converted = ImageCms.profileToProfile(
            image,
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, ValueError, OSError):
        converted = None
    return converted if converted is not None else image.convert("RGB")


def _working_copy(colour: Levels, alpha: Levels | None) -> Floats:
    """[H, W, 4] float32; a picture larger than WORKING is reduced, premultiplied and in linear light, in strips."""
    height, width = colour.shape[:2]
    scale = max(height, width) / WORKING
    if scale <= 1.0:
        rgba = np.ones((height, width, 4), np.float32)
        rgba[..., :3] = _unit(colour)
        if alpha is not None:
            rgba[..., 3] = _unit(alpha)
        return rgba
    short, narrow = max(1, round(height / scale)), max(1, round(width / scale))
    columns = weights(width, narrow, 0.0, width / narrow)
    rows = weights(height, short, 0.0, height / short)
    table = srgb_to_linear(np.linspace(0.0, 1.0, int(np.iinfo(colour.dtype).max) + 1))
    light = np.zeros((short, narrow, 4), np.float32)
    for top in range(0, height, _STRIP):
        strip = slice(top, top + _STRIP)
        opacity = np.ones(colour[strip].shape[:2], np.float32) if alpha is None else _unit(alpha[strip])
        planes = [table[colour[strip][..., i]] * opacity for i in range(3)]
        for i, plane in enumerate([*planes, opacity]):
            light[..., i] += rows[:, strip] @ (columns @ plane.T).T
    return unpremultiply(light)


def _unit(levels: Levels) -> Floats:
    """8 or 16 bits to [0, 1]."""
    return levels.astype(np.float32) / np.float32(np.iinfo(levels.dtype).max)
