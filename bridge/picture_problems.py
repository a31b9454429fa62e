"""What is wrong with pictures and with cameras. Cheap: panels ask as they draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bpy.types import Image, Object
from mathutils import Matrix

from .blender import absolute
from .pictures import has_picture, is_moved, unlisted_cameras
from .repairs import Problem, Repair, set_choice
from .rig import is_even

_OPEN = Repair("dreamlathe.picture_add", "Open Pictures", icon="FILE_FOLDER")
_FROM_CAMERA = Repair("dreamlathe.picture_from_camera", "From the Camera", icon="OUTLINER_OB_CAMERA")
_PROMPT = set_choice("Use the Prompt Alone", "source", "PROMPT", "OUTLINER_DATA_FONT")
_SHOWN = 3
"""Problems of a kind that are told at once."""


def picture_problems(settings: Any, cameras: Sequence[Object], matrix: Matrix) -> list[Problem]:
    """What is wrong with the scene's pictures and with those behind ``cameras``, which are looked from."""
    behind = unlisted_cameras(settings, cameras)
    if not settings.pictures and not behind:
        return [Problem("There is no picture", (_OPEN, _FROM_CAMERA, _PROMPT))]
    found = [problem for index, item in enumerate(settings.pictures) for problem in _item(index, item)][:_SHOWN]
    seen = [*(item.camera for item in settings.pictures if item.camera is not None), *behind]
    for camera in [each for each in seen if is_moved(each)][:_SHOWN]:
        straighten = Repair("dreamlathe.background_straighten", "Put It Straight", {"name": camera.name}, "LOOP_BACK")
        found.append(Problem(f"The picture behind {camera.name} is moved, turned or mirrored", (straighten,)))
    if seen:
        found += [*rig_problem(matrix), *camera_problems(seen, matrix)]
    return found


def _item(index: int, item: Any) -> list[Problem]:
    """What is wrong with one picture of the list."""
    find = Repair("dreamlathe.picture_add", "Open It", {"index": index}, "FILE_FOLDER")
    remove = Repair("dreamlathe.picture_remove", "Remove It", {"index": index}, "X")
    if item.image is None:
        if item.camera is None:
            return [Problem(f"Picture {index + 1} has no image", (find, remove))]
        return (
            []
            if has_picture(item.camera)
            else [Problem(f"{item.camera.name} has no picture behind it", (find, remove))]
        )
    if is_missing(item.image):
        return [Problem(f"The file of the image {item.image.name} is missing", (find, remove))]
    if item.image.source not in {"FILE", "GENERATED"}:
        return [Problem(f"{item.image.name} is no single picture", (find, remove))]
    maps = {"depth": item.depth, "normals": item.normals}
    lost = [name for name, path in maps.items() if path.strip() and not absolute(path).is_file()]
    clear = Repair("dreamlathe.picture_maps_clear", "Leave Them Out", {"index": index}, "X")
    return [Problem(f"The file of the {name} of picture {index + 1} is missing", (clear,)) for name in lost]


def is_missing(image: Image) -> bool:
    """An image of a file that is neither there nor packed nor in memory."""
    if image.source != "FILE" or image.packed_file is not None or image.is_dirty:
        return False
    return not absolute(image.filepath_from_user()).is_file()


def rig_problem(matrix: Matrix, *repairs: Repair) -> list[Problem]:
    """A rig from which no camera can be seen."""
    even = Repair("dreamlathe.rig_even", "Even Its Scale", icon="CON_SIZELIKE")
    return [] if is_even(matrix) else [Problem("The rig is stretched or mirrored", (even, *repairs))]


def camera_problems(cameras: Sequence[Object], matrix: Matrix, *repairs: Repair) -> list[Problem]:
    """Cameras without perspective, and those inside the ball of the rig whose matrix is given."""
    found = [
        Problem(f"{each.name} has no perspective", (Repair("dreamlathe.camera_mend", "Mend", {"name": each.name}),))
        for each in cameras
        if getattr(each.data, "type", "PERSP") != "PERSP"
    ]
    if not is_even(matrix):
        return found
    place, _, scale = matrix.decompose()
    inside = [each for each in cameras if (each.matrix_world.translation - place).length <= abs(scale.x)]
    return [*found, *(Problem(f"{each.name} stands inside the rig's ball", repairs) for each in inside[:_SHOWN])]
