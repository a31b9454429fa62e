"""Sketches: the model draws the object from all around, and the shape begins with these pictures.

Score distillation averages over all that the words allow. "Side view" allows an object that looks left and one that
looks right, so a body that has no front yet grows a head at both ends, and once it has two it keeps them. A drawing
means one of the two. What several drawings agree on is kept (see :mod:`.agreement`), what is turned is taken for both
sides, mirrored, and which way it looks follows from how the silhouettes fit each other (see :mod:`.coherence`). A
model that knows the camera is told it, and nothing need be found. The pictures count beside distillation.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..cameras import CameraBatch, middle_cameras
from ..errors import Cancelled, PictureError
from ..events import Event, Message, Phase, Preview
from ..files import output_errors, write_atomically
from ..guidance import (
    Guidance,
    ReferencePicture,
    Sketcher,
    ViewMapsModel,
    foretold_by,
    painter,
    sides_of,
    spared,
    together,
)
from ..picture import Picture, Reference, cut_out, read_picture
from ..reference import ReferenceSettings
from ..reference_files import FOLDER, ReferenceView, with_mirror_images
from ..request import Request
from .agreement import agreement
from .coherence import Hulls
from .reference_loss import ReferenceViews
from .sides import masked, side_views
from .vetoes import without_vetoes

Floats = NDArray[np.float32]
Check = Callable[[], None]
Sketches = Mapping[str, Floats]
"""[S, S, 4] each, straight alpha."""

AZIMUTHS = {
    "front": 0.0,
    "front-right": 45.0,
    "right": 90.0,
    "back-right": 135.0,
    "back": 180.0,
    "back-left": -135.0,
    "left": -90.0,
    "front-left": -45.0,
}
"""Degrees, of the sketches."""
ABOVE = "above"
ABOVE_ELEVATION = 65.0
"""Degrees: one more, of a model that knows the camera; "overhead view" says nothing of the azimuth."""
_SIDEWAYS = 91.0
"""Degrees of azimuth: from farther behind, a sketch says little of the whole shape."""
_ALONG_THE_MIRROR = ("front", "back", ABOVE)
"""Views of a mirror-symmetric object that are their own mirror images."""
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
    references: Sequence[ReferenceView] = (),
) -> tuple[ReferenceViews, ...]:
    """The sketches for a request, drawn or, in a folder of a job that goes on, read; and the shape all around.

    The latter where the guidance knows it (see :mod:`.sides`); neither where ``references``, its pictures, show more
    (see :mod:`.vetoes`). Nothing, and ``report`` hears it, where the model's drawings cannot be told from their
    backgrounds. Raises Cancelled and OutputError.
    """
    sketcher = painter(guidance)
    if not request.sketches or not isinstance(sketcher, Sketcher):
        return ()

    def check() -> None:
        if should_stop():
            raise Cancelled("Stopped before the first step.", "The same request in the same folder begins anew.")

    names = [*AZIMUTHS, ABOVE] if sketcher.told else list(AZIMUTHS)
    paths = {name: _path(folder, name) for name in names}
    knowing = sides_of(sketcher) if request.sketch.foretells else None
    if not all(path.exists() for path in paths.values()):
        pictures = _Studio(request, sketcher, device, report, check).sketches()
        if pictures is None:
            text = "The model's sketches cannot be told from their backgrounds; the shape begins without them."
            report(Message("warning", text))
            return ()
        if knowing is not None:
            pictures = masked({name: pictures[name] for name in names}, knowing.seen_from(_cameras(names, request)))
        for name, path in paths.items():
            _write(path, pictures[name])
    report(Preview(str(paths["front"]), 0))
    drawn = sketch_views(request, folder)
    if knowing is None and request.sketch.foretells:
        knowing = foretold_by(sketcher, _telling(drawn))
    return _as_pictures(request, drawn, knowing, references, device)


def sketch_views(request: Request, folder: Path) -> tuple[ReferenceView, ...]:
    """The sketches in a job's folder, with their cameras; none if there are none."""
    paths = {name: path for name in (*AZIMUTHS, ABOVE) if (path := _path(folder, name)).exists()}
    if not request.sketches or not paths.keys() >= AZIMUTHS.keys():
        return ()
    return _views({name: read_picture(path).rgba for name, path in paths.items()}, request)


@dataclass(frozen=True)
class _Studio:
    """Where a request's sketches are made."""

    request: Request
    sketcher: Sketcher
    device: torch.device
    report: Callable[[Event], None]
    check: Check

    def sketches(self) -> Sketches | None:
        """All of them; None if too few drawings have a plain background."""
        told, mirrored = self.sketcher.told, self.request.mirrored or not self.sketcher.told
        names = [name for name in AZIMUTHS if not (mirrored and name.endswith("left"))] + [ABOVE] * told
        generator = torch.Generator(self.device).manual_seed(self.request.seed)
        kept: dict[str, Floats] = {}
        for name in names:
            self.report(Phase("optimize", f"Sketching: {name.replace('-', ' ')}."))
            found = [cut for cut in map(_cut, self._draw(name, generator)) if cut is not None]
            if len(found) < _LEAST_CUT:
                return None
            kept[name] = self._agreed(name, found)
        if not mirrored:
            return kept
        return _both_sides(kept) if told else self._turned(kept)

    def _agreed(self, name: str, found: list[Floats]) -> Floats:
        """What the drawings ``found`` of a view agree on; along the mirror, they and their mirror images."""
        along, told = name in _ALONG_THE_MIRROR, self.sketcher.told
        if along and self.request.mirrored:
            twins = [np.ascontiguousarray(drawing[:, ::-1]) for drawing in found]
            return agreement(found + twins, _SYMMETRY, mirrored=False)
        return agreement(found, 0.0 if told or not along else _SYMMETRY, mirrored=not told)

    def _draw(self, name: str, generator: torch.Generator) -> list[Floats]:
        """Drawings [S, S, 3] of one view."""
        settings, drawings = self.request.sketch, list[Floats]()
        wanted = settings.told_candidates if self.sketcher.told else settings.candidates
        while (left := wanted - len(drawings)) > 0:
            self.check()
            cameras = _cameras([name] * min(left, together(self.sketcher)), self.request)
            try:
                images = self.sketcher.draw(cameras, settings, generator)
            except torch.OutOfMemoryError as error:
                self.report(Message("warning", spared(self.sketcher, error)))
                continue
            drawings += list(images.permute(0, 2, 3, 1).float().cpu().numpy())
        return drawings

    def _turned(self, kept: Sketches) -> Sketches:
        """The same, what is turned mirrored or not: as the silhouettes fit each other best."""
        turned = [name for name in kept if name.endswith("right")]
        hulls = Hulls(list(AZIMUTHS), _cameras(list(AZIMUTHS), self.request))

        def way(flips: Sequence[bool]) -> Sketches:
            flipped = {name: kept[name][:, ::-1] for name, flip in zip(turned, flips, strict=True) if flip}
            return _both_sides({**kept, **flipped})

        def coherence(sketches: Sketches) -> float:
            return hulls.coherence({name: picture[..., 3] for name, picture in sketches.items()})

        return max(map(way, itertools.product((False, True), repeat=len(turned))), key=coherence)


def _both_sides(kept: Sketches) -> dict[str, Floats]:
    """The pictures from the right also from the left, mirrored."""
    lefts = {name.replace("right", "left"): picture[:, ::-1] for name, picture in kept.items() if "right" in name}
    return {**kept, **lefts}


def _path(folder: Path, name: str) -> Path:
    return folder / FOLDER / f"sketch-{name}.png"


def _cameras(names: Sequence[str], request: Request) -> CameraBatch:
    elevations = [ABOVE_ELEVATION if name == ABOVE else request.sketch.elevation for name in names]
    return middle_cameras([AZIMUTHS.get(name, 0.0) for name in names], elevations, request.orbit)


def _cut(drawing: Floats) -> Floats | None:
    """[S, S, 4], or None if the object cannot be told from its background."""
    height, width = drawing.shape[:2]
    opaque = np.concatenate([drawing, np.ones((height, width, 1), np.float32)], axis=-1)
    try:
        return cut_out(Picture("sketch", opaque, width, height)).rgba
    except PictureError:
        return None


def _views(pictures: Sketches, request: Request) -> tuple[ReferenceView, ...]:
    """The sketches and their cameras."""
    cameras = _cameras(list(pictures), request)
    views: list[ReferenceView] = []
    for index, rgba in enumerate(pictures.values()):
        picture = Reference(np.ascontiguousarray(rgba), "plain")
        views.append(ReferenceView(cameras[index : index + 1], 1.0, (picture,), picture, _bytes(picture.rgba)))
    return tuple(views)


def _as_pictures(
    request: Request,
    drawn: Sequence[ReferenceView],
    knowing: ViewMapsModel | None,
    references: Sequence[ReferenceView],
    device: torch.device,
) -> tuple[ReferenceViews, ...]:
    """The kept sketches ``drawn``, and the sides that a model foretells, as what pictures are to the loop.

    The latter last beside pictures; of sketches, which are means, they lack ears and tails, which paintings add.
    """
    settings = request.sketch
    counting = ReferenceSettings(settings.colour_weight, settings.mask_weight, "squared", rays=settings.rays)
    foretold = () if knowing is None else side_views(knowing)
    pictures = with_mirror_images(references) if request.mirrored else references
    views = without_vetoes((*drawn, *foretold), pictures)
    sketches = ReferenceViews(views[: len(drawn)], counting, device)
    if not foretold:
        return (sketches,)
    sides = dataclasses.replace(
        counting,
        colour_weight=0.0,
        mask_weight=settings.side_weight,
        depth_weight=settings.depth_weight,
        normal_weight=settings.normal_weight,
    )
    return sketches, ReferenceViews(views[len(drawn) :], sides, device, lasting=bool(references))


def _telling(drawn: Sequence[ReferenceView]) -> list[ReferencePicture]:
    """The sketches that say what the whole shape is: those that are not from behind."""
    before = [view for view in drawn if abs(float(view.camera.azimuth[0])) <= _SIDEWAYS]
    return [ReferencePicture(torch.from_numpy(view.shown.rgba).permute(2, 0, 1), view.camera) for view in before]


def _bytes(rgba: Floats) -> NDArray[np.uint8]:
    return np.rint(np.clip(rgba, 0.0, 1.0) * 255.0).astype(np.uint8)


def _write(path: Path, rgba: Floats) -> None:
    buffer = io.BytesIO()
    Image.fromarray(_bytes(rgba)).save(buffer, "PNG")
    with output_errors(path):
        path.parent.mkdir(exist_ok=True)
    write_atomically(path, buffer.getvalue())
