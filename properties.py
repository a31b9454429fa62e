"""The scene's settings, and the only place that turns them into a request and back.

The groups for the orbit, the guidance, the optimization and the mesh are made from the request's own dataclasses:
names, bounds, choices and descriptions are written once, there.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, cast

import bpy
import numpy as np
from bpy.props import (
    BoolProperty,
    EnumProperty,
    FloatProperty,
    FloatVectorProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)
from bpy.types import Collection, Object, PropertyGroup, Scene

from .backend.request import (
    BUILT_IN_MODEL,
    BUILT_IN_VIEW_MODEL,
    FixedCamera,
    GuidanceSettings,
    MeshSettings,
    OptimizeSettings,
    OrbitRig,
    PresetName,
    ReferenceSettings,
    RefineSettings,
    Request,
    ViewGuidanceSettings,
)
from .bridge.blender import register_classes, unregister_classes, with_properties
from .bridge.callbacks import apply_preset, may_be_rig, write_section
from .bridge.suggestions import suggest_models, suggest_prompts

CameraSource = Literal["ORBIT", "SCENE", "SELECTED", "COLLECTION"]

_SECTIONS = {
    "orbit": OrbitRig,
    "guidance": GuidanceSettings,
    "optimize": OptimizeSettings,
    "refine": RefineSettings,
    "mesh": MeshSettings,
    "view_guidance": ViewGuidanceSettings,
    "reference": ReferenceSettings,
}
_NAMES = {
    "fantasia3d": "Fantasia3D",
    "perp_neg": "Perp-Neg",
    "perp_neg_strength": "Perp-Neg Strength",
    "sdi": "SDI",
    "sds": "SDS",
    "sqrt": "Square Root",
    "stable-zero123": "Stable Zero123",
    "stable-dreamfusion": "Stable-DreamFusion",
    "threestudio": "threestudio",
    "tinycudann": "tiny-cuda-nn",
    "torch": "PyTorch",
    "zero-1-to-3": "Zero-1-to-3",
}
"""Names that are not the setting's own with capitals."""
_PRESETS = (
    ("draft", "Draft", "A first look, in about a minute on two cores"),
    ("standard", "Standard", "A good result, in a few minutes on two cores"),
    ("high", "High", "A fine result, in a quarter of an hour on two cores"),
)
_SOURCES = (
    ("ORBIT", "Orbit", "Look from all around, drawn anew at each step"),
    ("SCENE", "Scene", "Look from every camera of the scene"),
    ("SELECTED", "Selected", "Look from the selected cameras"),
    ("COLLECTION", "Collection", "Look from the cameras of a collection"),
)


class Settings(Protocol):
    """``scene.dreamlathe`` as type checkers see it; the sections have the fields of the request's dataclasses."""

    prompt: str
    negative_prompt: str
    seed: int
    preset: PresetName
    model: str
    view_model: str
    camera_source: CameraSource
    camera_collection: Collection | None
    rig: Object | None
    orbit: Any
    guidance: Any
    optimize: Any
    refine: Any
    mesh: Any
    view_guidance: Any
    reference: Any
    show_orbit: bool
    use_real_size: bool
    real_size: float
    result_collection: Collection | None
    mark_asset: bool


def settings_of(scene: Scene) -> Settings:
    """The scene's settings."""
    return cast("Settings", getattr(scene, "dreamlathe"))  # noqa: B009 - Scene's type does not know it


def to_request(settings: Settings, *, device: str = "auto", cameras: Sequence[FixedCamera] = ()) -> Request:
    """The request of the settings, not yet validated. ``cameras`` are used unless the settings say orbit."""
    return Request(
        prompt=settings.prompt,
        negative_prompt=settings.negative_prompt,
        seed=settings.seed,
        preset=settings.preset,
        model=settings.model,
        view_model=settings.view_model,
        device=device,
        cameras=() if settings.camera_source == "ORBIT" else tuple(cameras),
        **{name: _read(getattr(settings, name), kind) for name, kind in _SECTIONS.items()},
    )


def from_request(settings: Settings, request: Request) -> None:
    """Make the settings those of a request.

    Its device is a preference, its fixed cameras are the scene's, and its pictures are files: they stay as they are.
    """
    settings.preset = request.preset  # first: choosing a preset writes the sections
    settings.prompt = request.prompt
    settings.negative_prompt = request.negative_prompt
    settings.seed = request.seed
    settings.model = request.model
    settings.view_model = request.view_model
    for name in _SECTIONS:
        write_section(getattr(settings, name), getattr(request, name))


def orbit_of(settings: Settings) -> OrbitRig:
    """The orbit of the settings."""
    return cast("OrbitRig", _read(settings.orbit, OrbitRig))


def _read(group: Any, kind: type[Any]) -> Any:
    """A dataclass of the values of its group."""
    return kind(**{item.name: _plain(getattr(group, item.name)) for item in dataclasses.fields(kind)})


def _plain(value: Any) -> Any:
    """A property's value as the request holds it.

    Blender keeps single precision: the shortest decimal that means the same number there is what was typed.
    """
    if isinstance(value, float):
        return float(str(np.float32(value)))
    return value if isinstance(value, (bool, int, str)) else tuple(_plain(float(each)) for each in value)


def _section(kind: type[Any], label: str) -> type[PropertyGroup]:
    """A property group with one property for each field of a settings dataclass."""
    hints, told = typing.get_type_hints(kind), _descriptions(kind)
    properties = {f.name: _property(f, hints[f.name], told.get(f.name, "")) for f in dataclasses.fields(kind)}
    group = type(f"DREAMLATHE_PG_{label}", (PropertyGroup,), {"__doc__": kind.__doc__})
    with_properties(group, properties)
    return group


def _property(item: dataclasses.Field[Any], kind: Any, description: str) -> Any:
    """The Blender property of one field."""
    common: dict[str, Any] = {"name": _label(item.name), "description": description}
    default: Any = item.default
    common["default"] = default
    if typing.get_origin(kind) is Literal:
        choices = [(each, _label(each), "") for each in typing.get_args(kind)]
        return EnumProperty(items=choices, **common)
    makers: dict[Any, Callable[..., Any]] = {bool: BoolProperty, str: StringProperty}
    if kind in makers:
        return makers[kind](**common)
    low, high = item.metadata["low"], item.metadata["high"]
    if kind is int:
        return IntProperty(min=int(low), max=int(high), **common)
    common |= {"min": float(low), "max": float(high)}
    if kind is float:
        return FloatProperty(precision=4 if 0 < default < 0.05 else 2, **common)
    return FloatVectorProperty(size=len(default), **common)


def _label(name: str) -> str:
    """A name for people."""
    return _NAMES.get(name, name.replace("_", " ").title())


def _descriptions(kind: type[Any]) -> dict[str, str]:
    """The sentence under each field of a dataclass, without its full stop, as Blender shows tooltips."""
    body = cast("ast.ClassDef", ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]).body
    told: dict[str, str] = {}
    for field, text in itertools.pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(sentence))):
                told[name] = " ".join(sentence.split()).rstrip(".")
            case _:
                pass
    return told


class DREAMLATHE_PG_settings(PropertyGroup):
    """Everything a scene says about its next job."""


_GROUPS = {name: _section(kind, name) for name, kind in _SECTIONS.items()}

with_properties(
    DREAMLATHE_PG_settings,
    {
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
        ),
        "camera_source": EnumProperty(name="Look From", description="Where views are taken from", items=_SOURCES),
        "camera_collection": PointerProperty(
            name="Collection", description="The collection whose cameras are looked from", type=Collection
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

CLASSES = (*_GROUPS.values(), DREAMLATHE_PG_settings)


def register() -> None:
    """Register the groups and put the settings on scenes."""
    register_classes(CLASSES)
    setattr(bpy.types.Scene, "dreamlathe", PointerProperty(type=DREAMLATHE_PG_settings))  # noqa: B010


def unregister() -> None:
    """Take the settings from scenes and the groups back."""
    delattr(bpy.types.Scene, "dreamlathe")
    unregister_classes(CLASSES)
