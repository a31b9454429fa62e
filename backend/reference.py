"""Pictures of the object as a request names them: files, cameras, and how much they count. Standard library only.

A picture's camera is one of the scene's, or a pose on the orbit. The file's content decides the result, not its place:
when a job starts, :attr:`ReferenceImage.content` is filled in, and from then on nothing else will do for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import RequestError
from .settings import bounded

MOST_REFERENCES = 64
DepthKind = Literal["relative", "disparity", "metric"]
"""Depth in any unit, from anywhere; disparity's negative, which is linear in −1/depth (what many models see); or depth
in radii of the ball, from the camera."""
_STRAIGHT = 1e-3
"""A camera beside the front's axis by less of its distance is in front."""


@dataclass(frozen=True)
class FixedCamera:
    """One camera of the scene, in the rig's space (ball of radius 1 at the origin)."""

    camera_to_world: tuple[tuple[float, float, float, float], ...]
    """4×4, rows; Blender's axes (looks down −Z, +Y up); rotation and translation only."""
    focal: tuple[float, float]
    """Normalised: a camera-space point lands at focal · (X, Y) / −Z + center, in [−1, 1]."""
    center: tuple[float, float] = (0.0, 0.0)
    """Principal point, normalised."""
    name: str = ""
    """The camera's name, for people."""
    prompt: str = ""
    """What is seen from here, in words, where it is not the request's prompt; of no use to a picture."""


@dataclass(frozen=True)
class ReferenceImage:
    """A picture of the object and the camera it is seen from.

    The pose (degrees; lengths in radii of the object's ball) is that of a camera which looks at the ball's middle.
    """

    file: str
    """PNG, JPEG, WebP, TIFF, BMP or GIF."""
    azimuth: float = bounded(0.0, -180.0, 180.0)
    """0 is the front (−Y), 90 is seen from +X."""
    elevation: float = bounded(0.0, -90.0, 90.0)
    """90 is straight above."""
    distance: float = bounded(3.0, 1.05, 100.0)
    """From the ball's centre."""
    field_of_view: float = bounded(40.0, 1.0, 150.0)
    """Of the picture, padded to a square."""
    camera: FixedCamera | None = None
    """The camera itself, instead of the pose; its picture is the smallest square that holds the file's."""
    weight: float = bounded(1.0, 1e-3, 1e3)
    """How much it counts beside other pictures."""
    depth: str = ""
    """File of its depth: 16-bit grey, float TIFF or .npy; larger is farther, in any unit."""
    normals: str = ""
    """File of its normals, in the camera's axes: colours, n = 2·colour − 1, or .npy."""
    cutout: Literal["auto", "transparency", "rembg", "plain"] = "auto"
    """How the object is told from its background; auto tries each."""
    framing: Literal["auto", "object", "as-is"] = "auto"
    """Whether the object is moved and scaled to fill the ball as the pose sees it, or the picture is what the camera
    saw; auto is as-is where a camera is given, and object elsewhere."""
    name: str = ""
    """The file's own name, for people; filled in when the job starts."""
    content: str = ""
    """SHA-256 of what the files hold; filled in when the job starts."""

    @property
    def title(self) -> str:
        """What people call it."""
        return Path(self.name or self.file).stem

    @property
    def is_as_is(self) -> bool:
        """Whether the picture is what the camera saw."""
        return self.camera is not None if self.framing == "auto" else self.framing == "as-is"

    @property
    def is_turned(self) -> bool:
        """Whether it is told to be seen from another side than the front, which nobody may have chosen."""
        if self.camera is None:
            return self.azimuth != 0.0
        x, y = (row[3] for row in self.camera.camera_to_world[:2])
        return y > 0.0 or abs(x) > _STRAIGHT * abs(y)

    @property
    def files(self) -> dict[str, str]:
        """Its files, by the field that names them; those that are given."""
        return {field: path for field in ("file", "depth", "normals") if (path := getattr(self, field))}

    def by_content(self) -> ReferenceImage:
        """A copy that is equal wherever the same files lie; self where the content is not known yet."""
        if not self.content:
            return self
        given = {field: field for field in self.files}
        return dataclasses.replace(self, **given, name="")


@dataclass(frozen=True)
class ReferenceSettings:
    """How much the pictures themselves count, beside what a model makes of them, and how they are looked at.

    Losses are means over rays. Beside a guidance of weight 1, threestudio gives colours 5000 (500 to 0.1) and the mask
    500, stable-dreamfusion 1000, 500 and depth 10, on every fourth step and alone. Here they count ten times that, so
    that no guidance blurs what a picture shows, and depth and normals as much as shapes gain most by.
    """

    colour_weight: float = bounded(50_000.0, 0.0, 1e6)
    """Of the squared error of sRGB colours, before one random background."""
    mask_weight: float = bounded(10_000.0, 0.0, 1e6)
    """Of the error of the opacity."""
    mask_loss: Literal["entropy", "squared"] = "entropy"
    """How that is measured: by half the cross-entropy, which leaves no fog, or by the square, which forgives it."""
    depth_weight: float = bounded(300.0, 0.0, 1e6)
    """Of 1 − r, the correlation with the depth (Pearson's: scale and shift do not count), given or seen by a model."""
    normal_weight: float = bounded(1_000.0, 0.0, 1e6)
    """Of 1 − the cosine to the normals."""
    ramp: float = bounded(0.25, 0.0, 1.0)
    """Share of the run over which the weights of depth and normals grow from nothing."""
    interval: int = bounded(1, 1, 1000)
    """Steps from one look at the pictures to the next."""
    alone: bool = False
    """Steps that look at the pictures do not ask the models."""
    rays: int = bounded(48, 8, 512)
    """Side of the square of rays that such a step casts, shared by the pictures; each ray is drawn anew."""
    jitter: float = bounded(0.5, 0.0, 8.0)
    """Half-width, in pixels, of the uniform offset of a ray from its pixel's middle."""
    resolution: int = bounded(128, 16, 1024)
    """Side, in pixels, of the pictures as they are compared."""
    resolution_start: int = bounded(64, 16, 1024)
    """The same at the start; it doubles, at even steps in the first half of the run."""
    projection: float = bounded(1.0, 0.0, 1.0)
    """Share of the pictures' own colours, in full resolution, in the texture where they show the surface; the rest is
    the field's. Without a colour weight there is none."""
    outline: float = bounded(1.0, 0.0, 1.0)
    """Share of the way that the mesh's outline, as pictures or sketches see it, is moved to that of their masks.
    Without a mask weight it stays."""


def camera_prompts(cameras: Sequence[FixedCamera]) -> tuple[str, ...]:
    """The prompts that cameras have of their own, each once, in the order of the cameras."""
    return tuple(dict.fromkeys(prompt for camera in cameras if (prompt := camera.prompt.strip())))


def check_references(references: Sequence[ReferenceImage]) -> None:
    """Raise RequestError for pictures that contradict themselves; their files are not looked at."""
    if len(references) > MOST_REFERENCES:
        raise RequestError(f"There are {len(references)} pictures.", f"{MOST_REFERENCES} are the most.")
    for index, each in enumerate(references):
        name = f"references[{index}]"
        if not each.file.strip():
            raise RequestError(f"{name} has no file.", "Name a picture's file.")
        if each.camera is not None:
            check_camera(each.camera, f"{name}.camera")
            if each.framing == "object":
                raise RequestError(
                    f"{name} has a camera, which sees the object where it is.", "Leave its framing at auto."
                )


def check_camera(camera: FixedCamera, name: str) -> None:
    """Finite, with a lens, and placed by a rotation and a translation that can be told from the world's origin."""
    rows = camera.camera_to_world
    if len(rows) != 4:
        raise RequestError(f"{name}.camera_to_world is not 4×4.", "Give four rows of four numbers.")
    numbers = [n for row in rows for n in row] + [*camera.focal, *camera.center]
    if not all(abs(n) <= 1e6 for n in numbers) or min(camera.focal) < 1e-3:
        raise RequestError(f"{name} has a value that is not finite, or no focal length.", "Check the camera.")
    axes = [[row[i] for row in rows[:3]] for i in range(3)]
    for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
        product = sum(a * b for a, b in zip(axes[i], axes[j], strict=True))
        if abs(product - (i == j)) > 1e-3:
            raise RequestError(f"{name}.camera_to_world is scaled or sheared.", "Apply the camera's scale.")
    if max(abs(a - b) for a, b in zip(rows[3], (0, 0, 0, 1), strict=True)) > 1e-6:
        raise RequestError(f"{name}.camera_to_world ends in {list(rows[3])}.", "Its last row must be 0, 0, 0, 1.")


def resolved(references: Sequence[ReferenceImage], folder: Path) -> tuple[ReferenceImage, ...]:
    """Pictures whose relative paths are those of ``folder``, as a request's file means them."""
    return tuple(
        dataclasses.replace(each, **{field: str(folder / path) for field, path in each.files.items()})
        for each in references
    )
