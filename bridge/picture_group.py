"""One picture of the scene's list, as Blender keeps it."""

from __future__ import annotations

from bpy.props import PointerProperty, StringProperty
from bpy.types import Image, Object, PropertyGroup

from ..backend.reference import ReferenceImage
from .blender import with_properties
from .callbacks import may_be_camera
from .settings_groups import properties_of

POSE = ("azimuth", "elevation", "distance", "field_of_view")
"""Of a picture without a camera of the scene."""
TREATMENT = ("weight", "cutout")
MAPS = ("depth", "normals")


class DREAMLATHE_PG_picture(PropertyGroup):
    """A picture of the object and the camera it is seen from."""


with_properties(
    DREAMLATHE_PG_picture,
    {
        "image": PointerProperty(
            name="Image", description="The picture; empty: what lies behind the picture's camera", type=Image
        ),
        "camera": PointerProperty(
            name="Seen From",
            description="The camera that saw the picture, which is fitted into its frame; empty: a place on the orbit",
            type=Object,
            poll=may_be_camera,
        ),
        **properties_of(ReferenceImage, (*POSE, *TREATMENT, "framing")),
        "depth": StringProperty(
            name="Depth",
            description="File of its depth: 16-bit grey, float TIFF or .npy; larger is farther, in any unit",
            subtype="FILE_PATH",
        ),
        "normals": StringProperty(
            name="Normals",
            description="File of its normals in the camera's axes, as colours or .npy",
            subtype="FILE_PATH",
        ),
    },
)
