"""The thirty objects, and the one picture of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.cameras import CameraBatch, orbit_cameras
from backend.reference import ReferenceImage
from backend.request import PresetName, Request, preset
from backend.toybox.held_out import HELD_OUT_KINDS
from backend.toybox.instances import held_out
from backend.toybox.kinds import KINDS
from backend.toybox.shapes import Solids
from backend.toybox.view_dataset import DISTANCE, FIELD_OF_VIEW, lamp, picture

PICTURE_SIZE = 256
AZIMUTH, ELEVATION = (-60.0, 60.0), (0.0, 30.0)
"""Of the reference camera, in degrees."""
FIRST = 10_000
"""Number of the first object among the held-out ones; those that samples are judged by have smaller numbers."""
_SUPERSAMPLE = 3


@dataclass(frozen=True)
class Subject:
    """One held-out object."""

    number: int
    kind: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.number:02d}-{self.kind}"

    @property
    def group(self) -> str:
        """Whether training showed others of its kind: known or unseen."""
        return "known" if self.kind in KINDS else "unseen"

    @cached_property
    def solids(self) -> Solids:
        """The truth."""
        return held_out(FIRST + self.number, self.kind).solids

    @cached_property
    def pose(self) -> tuple[float, float]:
        """Azimuth and elevation of the reference camera."""
        rng = np.random.default_rng((FIRST, self.number))
        return round(float(rng.uniform(*AZIMUTH)), 1), round(float(rng.uniform(*ELEVATION)), 1)

    @property
    def camera(self) -> CameraBatch:
        """Of the reference picture."""
        return orbit_cameras(*self.pose, DISTANCE, FIELD_OF_VIEW)

    @cached_property
    def picture(self) -> NDArray[np.float32]:
        """The reference picture [S, S, 4], sRGB with straight alpha, lit by a lamp a little above the camera."""
        return picture(self.solids, self.camera, lamp(self.camera), PICTURE_SIZE, _SUPERSAMPLE)

    def save_picture(self, image: Path) -> None:
        """Write the reference picture to a file of 8 bits a channel."""
        Image.fromarray(np.rint(self.picture * 255).astype(np.uint8)).save(image)

    def request(self, image: Path, preset_name: PresetName, view_model: str, seed: int, changes: list[str]) -> Request:
        """The request of its reconstruction from the picture in ``image``, with ``changes`` ("path=value")."""
        azimuth, elevation = self.pose
        seen = ReferenceImage(str(image), azimuth, elevation, DISTANCE, FIELD_OF_VIEW, framing="as-is")
        request = preset(preset_name, "", seed=seed, references=(seen,), view_model=view_model)
        return request.with_assignments(changes).validated()


def subjects(known: int, unseen: int) -> list[Subject]:
    """``known`` objects whose kinds training showed, all kinds in turn, then ``unseen`` ones."""
    shown, hidden = tuple(KINDS), tuple(HELD_OUT_KINDS)
    rows = [Subject(i, shown[i % len(shown)]) for i in range(known)]
    return [*rows, *(Subject(50 + i, hidden[i % len(hidden)]) for i in range(unseen))]
