"""The scene's settings, and the only place that turns them into a request and back.

The groups for the orbit, the guidance, the optimization and the mesh are made from the request's own dataclasses:
names, bounds, choices and descriptions are written once, there (:mod:`.bridge.settings_groups`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Protocol, cast

import bpy
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)
from bpy.types import Collection, Object, PropertyGroup, Scene

from .backend.reference import ReferenceImage
from .backend.request import (
    BUILT_IN_MODEL,
    BUILT_IN_VIEW_MODEL,
    FixedCamera,
    GuidanceSettings,
    LoadingSettings,
    MeshSettings,
    OptimizeSettings,
    OrbitRig,
    PresetName,
    ReferenceSettings,
    RefineSettings,
    Request,
    SketchSettings,
    ViewGuidanceSettings,
)
from .bridge.blender import register_classes, unregister_classes, with_properties
from .bridge.callbacks import CAMERA_PROMPT, apply_preset, may_be_rig, write_section
from .bridge.picture_group import DREAMLATHE_PG_picture
from .bridge.settings_groups import read_section, section
from .bridge.suggestions import suggest_models, suggest_prompts, suggest_view_models

Source = Literal["PROMPT", "PICTURE", "BOTH"]
CameraSource = Literal["ORBIT", "SCENE", "SELECTED", "COLLECTION"]

_SECTIONS = {
    "orbit": OrbitRig,
    "guidance": GuidanceSettings,
    "optimize": OptimizeSettings,
    "refine": RefineSettings,
    "sketch": SketchSettings,
    "mesh": MeshSettings,
    "view_guidance": ViewGuidanceSettings,
    "loading": LoadingSettings,
    "reference": ReferenceSettings,
}
_PRESETS = (
    ("draft", "Draft", "A first look, in about a minute on two cores"),
    ("standard", "Standard", "A good result, in a few minutes on two cores"),
    ("high", "High", "A fine result, in a quarter of an hour on two cores"),
)
_STARTS = (
    ("PROMPT", "Prompt", "Make what the prompt says"),
    ("PICTURE", "Picture", "Make what the pictures show"),
    ("BOTH", "Both", "Make what the pictures show, and what the prompt says of it"),
)
_SOURCES = (
    ("ORBIT", "Orbit", "Look from all around, drawn anew at each step"),
    ("SCENE", "Scene", "Look from every camera of the scene"),
    ("SELECTED", "Selected", "Look from the selected cameras"),
    ("COLLECTION", "Collection", "Look from the cameras of a collection"),
)


class Settings(Protocol):
    """``scene.dreamlathe`` as type checkers see it; the sections have the fields of the request's dataclasses."""

    source: Source
    prompt: str
    negative_prompt: str
    pictures: Any
    picture: int
    camera_pictures: bool
    seed: int
    preset: PresetName
    model: str
    view_model: str
    camera_source: CameraSource
    camera_collection: Collection | None
    camera_count: int
    rig: Object | None
    orbit: Any
    guidance: Any
    optimize: Any
    refine: Any
    sketch: Any
    mesh: Any
    view_guidance: Any
    loading: Any
    reference: Any
    show_orbit: bool
    use_real_size: bool
    real_size: float
    result_collection: Collection | None
    mark_asset: bool


def settings_of(scene: Scene) -> Settings:
    """The scene's settings."""
    return cast("Settings", getattr(scene, "dreamlathe"))  # noqa: B009 - Scene's type does not know it


def uses_prompt(settings: Settings) -> bool:
    """The source is a prompt, alone or with pictures."""
    return settings.source != "PICTURE"


def uses_pictures(settings: Settings) -> bool:
    """The source is a picture, alone or with a prompt."""
    return settings.source != "PROMPT"


def to_request(
    settings: Settings,
    *,
    device: str = "auto",
    cameras: Sequence[FixedCamera] = (),
    references: Sequence[ReferenceImage] = (),
) -> Request:
    """The request of the settings, not yet validated.

    ``cameras`` are used unless the settings say orbit, ``references`` where the source has pictures; the prompts, those
    of the cameras too, where it has one.
    """
    worded = uses_prompt(settings)
    seen = cameras if worded else [dataclasses.replace(each, prompt="") for each in cameras]
    return Request(
        prompt=settings.prompt if worded else "",
        negative_prompt=settings.negative_prompt,
        seed=settings.seed,
        preset=settings.preset,
        model=settings.model,
        view_model=settings.view_model,
        device=device,
        cameras=() if settings.camera_source == "ORBIT" else tuple(seen),
        references=tuple(references) if uses_pictures(settings) else (),
        **{name: read_section(getattr(settings, name), kind) for name, kind in _SECTIONS.items()},
    )


def from_request(settings: Settings, request: Request) -> None:
    """Make the settings those of a request.

    Its device is a preference and its fixed cameras are the scene's: they stay as they are; so does a prompt that it
    has no use for. Its pictures are listed by :func:`.bridge.pictures.list_pictures`.
    """
    settings.preset = request.preset  # first: choosing a preset writes the sections
    settings.source = "PROMPT" if not request.references else "BOTH" if request.prompt.strip() else "PICTURE"
    if uses_prompt(settings):
        settings.prompt = request.prompt
    settings.negative_prompt = request.negative_prompt
    settings.seed = request.seed
    settings.model = request.model
    settings.view_model = request.view_model
    for name in _SECTIONS:
        write_section(getattr(settings, name), getattr(request, name))


def orbit_of(settings: Settings) -> OrbitRig:
    """The orbit of the settings."""
    return cast("OrbitRig", read_section(settings.orbit, OrbitRig))


class DREAMLATHE_PG_settings(PropertyGroup):
    """Everything a scene says about its next job."""


_GROUPS = {name: section(kind, name) for name, kind in _SECTIONS.items()}

with_properties(
    DREAMLATHE_PG_settings,
    {
        "source": EnumProperty(name="Source", description="What the object is made from", items=_STARTS),
        "pictures": CollectionProperty(
            name="Pictures",
            description="Pictures of the object, each with the camera it was seen from",
            type=DREAMLATHE_PG_picture,
        ),
        "picture": IntProperty(name="Picture", description="The chosen picture"),
        "camera_pictures": BoolProperty(
            name="Cameras' Pictures",
            description="The background image of each camera that is looked from is a picture seen from it",
            default=True,
        ),
        "prompt": StringProperty(
            name="Prompt",
            description="What to make, in words",
            search=suggest_prompts,
            search_options={"SUGGESTION"},
        ),
        "negative_prompt": StringProperty(
            name="Negative", description="What to stay away from, in words; takes the place of the empty prompt"
        ),
        "seed": IntProperty(
            name="Seed", description="The same seed and the same settings give the same mesh", min=0, max=2**31 - 1
        ),
        "preset": EnumProperty(
            name="Preset",
            description="A good starting point; choosing one sets the quality and the mesh anew",
            items=_PRESETS,
            default="standard",
            update=apply_preset,
        ),
        "model": StringProperty(
            name="Model",
            description="The image model that knows what things look like: toybox, a diffusers folder, or a Hub id",
            default=BUILT_IN_MODEL,
            search=suggest_models,
            search_options={"SUGGESTION"},
        ),
        "view_model": StringProperty(
            name="View Model",
            description="What is shown pictures: toybox-views, a diffusers folder of Zero-1-to-3, a Hub id, or none",
            default=BUILT_IN_VIEW_MODEL,
            search=suggest_view_models,
            search_options={"SUGGESTION"},
        ),
        "camera_source": EnumProperty(name="Look From", description="Where views are taken from", items=_SOURCES),
        "camera_collection": PointerProperty(
            name="Collection", description="The collection whose cameras are looked from", type=Collection
        ),
        "camera_count": IntProperty(
            name="Count", description="How many cameras are made around the rig", default=8, min=1, max=256
        ),
        "rig": PointerProperty(
            name="Rig",
            description="The empty whose ball the object will live in; without one, the ball is at the world's origin",
            type=Object,
            poll=may_be_rig,
        ),
        "show_orbit": BoolProperty(
            name="Show Range",
            description="Draw the rig's front and the orbit's range in the viewport",
            default=True,
        ),
        "use_real_size": BoolProperty(
            name="Real-World Size", description="Give the result a size of its own instead of the rig's scale"
        ),
        "real_size": FloatProperty(
            name="Longest Side",
            description="Length of the result's longest side",
            default=1.0,
            min=1e-4,
            soft_max=100.0,
            subtype="DISTANCE",
        ),
        "result_collection": PointerProperty(
            name="Collection",
            description="Where results go, each in a collection of its own; empty: a collection named Dreamlathe",
            type=Collection,
        ),
        "mark_asset": BoolProperty(
            name="Mark as Asset",
            description="Offer the result in the asset browser, with its picture, the prompt and tags",
        ),
        **{name: PointerProperty(type=group) for name, group in _GROUPS.items()},
    },
)

CLASSES = (*_GROUPS.values(), DREAMLATHE_PG_picture, DREAMLATHE_PG_settings)


def register() -> None:
    """Register the groups, and put the settings on scenes and a prompt on cameras."""
    register_classes(CLASSES)
    prompt = StringProperty(
        name="Prompt", description="What is seen from this camera, in words; empty: what the scene's prompt says"
    )
    setattr(bpy.types.Object, CAMERA_PROMPT, prompt)
    setattr(bpy.types.Scene, "dreamlathe", PointerProperty(type=DREAMLATHE_PG_settings))  # noqa: B010


def unregister() -> None:
    """Take the settings from scenes, the prompt from cameras, and the groups back."""
    delattr(bpy.types.Scene, "dreamlathe")
    delattr(bpy.types.Object, CAMERA_PROMPT)
    unregister_classes(CLASSES)
