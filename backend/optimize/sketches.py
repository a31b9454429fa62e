"""Sketches: the model draws front, side and back by words alone, and the shape begins with these pictures.

Score distillation averages over all that the words allow. "Side view" allows an object that looks left and one that
looks right, so a body that has no front yet grows a head at both ends, and once it has two it keeps them. A drawing
means one of the two. What several drawings agree on is kept (see :mod:`.agreement`), the side is taken for both sides,
mirrored, and where its front is, is found by trying both (see :mod:`.trial`). The pictures count beside distillation.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..cameras import middle_cameras
from ..errors import Cancelled, PictureError
from ..events import Event, Message, Phase, Preview
from ..files import output_errors, write_atomically
from ..guidance import Guidance, Sketcher, painter, spared, together
from ..picture import Picture, Reference, cut_out, read_picture
from ..reference import ReferenceSettings
from ..reference_files import FOLDER, ReferenceView
from ..request import Request
from .agreement import agreement
from .reference_loss import ReferenceViews
from .trial import misfit_of

Floats = NDArray[np.float32]
Check = Callable[[], None]

AZIMUTHS = {"front": 0.0, "right": 90.0, "back": 180.0, "left": -90.0}
"""Degrees, of the four sketches."""
_LEAST_CUT = 3
"""Drawings whose background is plain enough; fewer cannot agree."""
_SYMMETRY = 0.5
"""How much it counts that a front or a back is its own mirror image: turned ones are not. See :func:`.typical`."""


def sketched(
    request: Request,
    folder: Path,
    guidance: Guidance | None,
    device: torch.device,
    report: Callable[[Event], None],
    should_stop: Callable[[], bool],
) -> ReferenceViews | None:
    """The sketches for a request, drawn or, in a folder of a job that goes on, read; None if there are to be none.

    There are none either, and ``report`` hears it, where the model's drawings cannot be told from their backgrounds.
    Raises Cancelled and OutputError.
    """
    sketcher = painter(guidance)
    if not request.sketches or not isinstance(sketcher, Sketcher):
        return None

    def check() -> None:
        if should_stop():
            raise Cancelled("Stopped before the first step.", "The same request in the same folder begins anew.")

    paths = _paths(folder)
    if not all(path.exists() for path in paths.values()):
        pictures = _drawn(request, sketcher, device, report, check)
        if pictures is None:
            text = "The model's sketches cannot be told from their backgrounds; the shape begins without them."
            report(Message("warning", text))
            return None
        for name, path in paths.items():
            _write(path, pictures[name])
    report(Preview(str(paths["front"]), 0))
    return _as_pictures(sketch_views(request, folder), request, device)


def sketch_views(request: Request, folder: Path) -> tuple[ReferenceView, ...]:
    """The sketches in a job's folder, with their cameras; none if there are none."""
    paths = _paths(folder)
    if not request.sketches or not all(path.exists() for path in paths.values()):
        return ()
    return _views({name: read_picture(path).rgba for name, path in paths.items()}, request)


def _paths(folder: Path) -> dict[str, Path]:
    return {name: folder / FOLDER / f"sketch-{name}.png" for name in AZIMUTHS}


def _drawn(
    request: Request, sketcher: Sketcher, device: torch.device, report: Callable[[Event], None], check: Check
) -> dict[str, Floats] | None:
    """The four sketches [S, S, 4]; None if too few drawings have a plain background."""
    generator = torch.Generator(device).manual_seed(request.seed)
    kept: dict[str, Floats] = {}
    for name, view in {"front": "front", "right": "side", "back": "back"}.items():
        report(Phase("optimize", f"Sketching the {view}."))
        drawings = _draw(request, sketcher, AZIMUTHS[name], generator, report, check)
        found = [cut for cut in map(_cut, drawings) if cut is not None]
        if len(found) < _LEAST_CUT:
            return None
        kept[name] = agreement(found, _SYMMETRY if name != "right" else 0.0)
    report(Phase("optimize", "Trying which way the side looks."))
    kept["left"] = kept["right"][:, ::-1]
    ways = kept, {**kept, "right": kept["left"], "left": kept["right"]}

    def misfit(way: dict[str, Floats]) -> float:
        pictures = _as_pictures(_views(way, request), request, device)
        return misfit_of(pictures, sketcher, request, device, check)

    return min(ways, key=misfit)


def _draw(
    request: Request,
    sketcher: Sketcher,
    azimuth: float,
    generator: torch.Generator,
    report: Callable[[Event], None],
    check: Check,
) -> list[Floats]:
    """Drawings [S, S, 3] of one view."""
    settings, drawings = request.sketch, list[Floats]()
    while (left := settings.candidates - len(drawings)) > 0:
        check()
        azimuths = [azimuth] * min(left, together(sketcher))
        cameras = middle_cameras(azimuths, settings.elevation, request.orbit)
        try:
            images = sketcher.draw(cameras, settings, generator)
        except torch.OutOfMemoryError as error:
            report(Message("warning", spared(sketcher, error)))
            continue
        drawings += list(images.permute(0, 2, 3, 1).float().cpu().numpy())
    return drawings


def _cut(drawing: Floats) -> Floats | None:
    """[S, S, 4], or None if the object cannot be told from its background."""
    height, width = drawing.shape[:2]
    opaque = np.concatenate([drawing, np.ones((height, width, 1), np.float32)], axis=-1)
    try:
        return cut_out(Picture("sketch", opaque, width, height)).rgba
    except PictureError:
        return None


def _views(pictures: dict[str, Floats], request: Request) -> tuple[ReferenceView, ...]:
    """The sketches and their cameras."""
    cameras = middle_cameras(list(AZIMUTHS.values()), request.sketch.elevation, request.orbit)
    views: list[ReferenceView] = []
    for index, name in enumerate(AZIMUTHS):
        picture = Reference(np.ascontiguousarray(pictures[name]), "plain")
        views.append(ReferenceView(cameras[index : index + 1], 1.0, (picture,), picture, _bytes(picture.rgba)))
    return tuple(views)


def _as_pictures(views: tuple[ReferenceView, ...], request: Request, device: torch.device) -> ReferenceViews:
    """The sketches as what pictures are to the loop."""
    settings = request.sketch
    weights = ReferenceSettings(colour_weight=settings.colour_weight, mask_weight=settings.mask_weight)
    return ReferenceViews(views, weights, device)


def _bytes(rgba: Floats) -> NDArray[np.uint8]:
    return np.rint(np.clip(rgba, 0.0, 1.0) * 255.0).astype(np.uint8)


def _write(path: Path, rgba: Floats) -> None:
    buffer = io.BytesIO()
    Image.fromarray(_bytes(rgba)).save(buffer, "PNG")
    with output_errors(path):
        path.parent.mkdir(exist_ok=True)
    write_atomically(path, buffer.getvalue())
