"""The field: hash-grid engines behind one interface, density and albedo heads."""

from __future__ import annotations

from .engine import ENGINES, HashEngine, automatic_engine, select_engine
from .field import Field, FieldConfig, FieldSample, build_field
from .layout import GridLayout, GridLevel, HashGridConfig
from .prior import Blob

__all__ = [
    "ENGINES",
    "Blob",
    "Field",
    "FieldConfig",
    "FieldSample",
    "GridLayout",
    "GridLevel",
    "HashEngine",
    "HashGridConfig",
    "automatic_engine",
    "build_field",
    "select_engine",
]
