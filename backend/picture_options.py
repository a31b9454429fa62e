"""Pictures as a command line names them. Standard library only.

Apart from :mod:`.reference`, which Blender reads at its start-up: argparse it needs only where there is a command.
"""

from __future__ import annotations

import argparse
from typing import Any

from .reference import ReferenceImage

_POSES = {"azimuth": "DEG", "elevation": "DEG", "distance": "RADII", "fov": "DEG", "weight": "W"}
_FIELDS = {"fov": "field_of_view", "normal": "normals"}
"""Fields that an option has a shorter name for."""


class _PictureAction(argparse.Action):
    """Begins a picture, or says something of the one that was begun last."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        pictures: list[dict[str, Any]] = list(getattr(namespace, "images", None) or [])
        name = (option or "").lstrip("-")
        if name == "image":
            pictures.append({"file": values})
        elif not pictures:
            parser.error(f"{option} belongs to a picture: write it after --image FILE")
        else:
            field = _FIELDS.get(name, name.replace("-", "_"))
            pictures[-1] = {**pictures[-1], field: _number(parser, option, values) if name in _POSES else values}
        namespace.images = pictures


def add_picture_options(parser: Any) -> None:
    """Give a command the options ``--image FILE`` and those that say more of the picture before them."""
    group = parser.add_argument_group("pictures", "each option speaks of the --image before it")

    def add(name: str, metavar: str, text: str) -> None:
        group.add_argument(name, action=_PictureAction, dest="images", default=None, metavar=metavar, help=text)

    add("--image", "FILE", "a picture of the object; may be given again")
    add("--azimuth", "DEG", "it is seen from there: 0 (default) is the front, 90 from +X")
    add("--elevation", "DEG", "0 (default) to 90, straight above")
    add("--distance", "RADII", "of the camera, in radii of the object's ball (default: 3)")
    add("--fov", "DEG", "field of view of the picture, padded to a square (default: 40)")
    add("--depth", "FILE", "its depth: 16-bit grey, float TIFF or .npy, larger is farther")
    add("--normal", "FILE", "its normals, in the camera's axes: colours or .npy")
    add("--weight", "W", "how much it counts beside other pictures (default: 1)")
    add("--cutout", "WAY", "auto (default), transparency, rembg or plain")
    add("--framing", "HOW", "object: moved to fill the ball; as-is: what the camera saw")


def pictures_of(options: argparse.Namespace, **defaults: Any) -> tuple[ReferenceImage, ...]:
    """The pictures that the options name, not yet validated; ``defaults`` are fields that none of them sets."""
    return tuple(ReferenceImage(**{**defaults, **each}) for each in options.images or ())


def _number(parser: argparse.ArgumentParser, option: str | None, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        parser.error(f"{option} is {text!r}: it must be a number")
