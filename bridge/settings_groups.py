"""From the request's dataclasses to property groups and back: names, bounds, choices and sentences are written once."""

from __future__ import annotations

import dataclasses
import json
import sys
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from bpy.props import BoolProperty, EnumProperty, FloatProperty, FloatVectorProperty, IntProperty, StringProperty
from bpy.types import PropertyGroup

from .blender import with_properties

_NAMES = {
    "bf16": "bfloat16",
    "fantasia3d": "Fantasia3D",
    "fp16": "float16",
    "fp32": "float32",
    "loras": "LoRAs",
    "nvrtc": "CUDA Kernels",
    "perp_neg": "Perp-Neg",
    "perp_neg_strength": "Perp-Neg Strength",
    "sdi": "SDI",
    "sds": "SDS",
    "sqrt": "Square Root",
    "stable-zero123": "Stable Zero123",
    "stable-dreamfusion": "Stable-DreamFusion",
    "threestudio": "threestudio",
    "tiny_vae": "Tiny VAE",
    "tinycudann": "tiny-cuda-nn",
    "torch": "PyTorch",
    "zero-1-to-3": "Zero-1-to-3",
}
"""Names that are not the setting's own with capitals."""
_PLAIN: dict[str, Any] = {each.__name__: each for each in (bool, int, float, str)}
_DESCRIPTIONS = json.loads(Path(__file__).with_name("descriptions.json").read_text(encoding="utf-8"))
"""The sentence under each field of each class, as Blender shows tooltips: written by docs/settings_page.py."""


def read_section(group: Any, kind: type[Any]) -> Any:
    """A dataclass of the values of its group."""
    return kind(**read_values(group, [item.name for item in dataclasses.fields(kind)]))


def read_values(group: Any, names: Iterable[str]) -> dict[str, Any]:
    """Values of a group's properties, as the request holds them."""
    return {name: _plain(getattr(group, name)) for name in names}


def _plain(value: Any) -> Any:
    """A property's value as the request holds it.

    Blender keeps single precision: the shortest decimal that means the same number there is what was typed.
    """
    if isinstance(value, float):
        return float(str(np.float32(value)))
    return value if isinstance(value, (bool, int, str)) else tuple(_plain(float(each)) for each in value)


def section(kind: type[Any], label: str) -> type[PropertyGroup]:
    """A property group with one property for each field of a settings dataclass."""
    group = type(f"DREAMLATHE_PG_{label}", (PropertyGroup,), {"__doc__": kind.__doc__})
    with_properties(group, properties_of(kind, [item.name for item in dataclasses.fields(kind)]))
    return group


def properties_of(kind: type[Any], names: Iterable[str]) -> dict[str, Any]:
    """A property for each of the named fields of a settings dataclass."""
    hints, told = _types(kind), _DESCRIPTIONS[kind.__name__]
    fields = {item.name: item for item in dataclasses.fields(kind)}
    return {name: _property(fields[name], hints[name], told[name]) for name in names}


def _types(kind: type[Any]) -> dict[str, Any]:
    """The fields' types; only those that are not plain are evaluated, which takes Blender's start-up."""
    names = {item.name: str(item.type) for item in dataclasses.fields(kind)}
    odd = SimpleNamespace(__annotations__={name: text for name, text in names.items() if text not in _PLAIN})
    hints = typing.get_type_hints(odd, vars(sys.modules[kind.__module__]))
    return {name: hints.get(name) or _PLAIN[text] for name, text in names.items()}


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
