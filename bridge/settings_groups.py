"""From the request's dataclasses to property groups and back: names, bounds, choices and sentences are written once."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import sys
import typing
from collections.abc import Callable, Iterable
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
    hints, told = typing.get_type_hints(kind), _descriptions(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}
    return {name: _property(fields[name], hints[name], told.get(name, "")) for name in names}


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
    body = _classes(kind.__module__)[kind.__name__].body
    told: dict[str, str] = {}
    for field, text in itertools.pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(sentence))):
                told[name] = " ".join(sentence.split()).rstrip(".")
            case _:
                pass
    return told


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a module as they are written, by name; read once, for reading them takes Blender's start-up."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {each.name: each for each in tree.body if isinstance(each, ast.ClassDef)}
