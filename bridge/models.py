"""Models as the scene's settings name them: paths made absolute for the worker, LoRAs between text and list."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import bpy

from ..backend.request import BUILT_IN_MODEL, BUILT_IN_VIEW_MODEL, NO_MODEL, LoadingSettings, Request
from .settings_groups import read_section

_ENDING = ".safetensors"
NETWORKS = ("tiny_vae", "depth_model")
"""Settings of loading that name a folder with one network."""


class Lora(NamedTuple):
    """One LoRA as the settings' text names it."""

    path: str
    weight: float | None = 1.0
    """1 is as it was trained; None where the text has no number."""

    @property
    def name(self) -> str:
        """The file's, without its ending."""
        return Path(self.path).name.removesuffix(_ENDING)

    @property
    def text(self) -> str:
        """As the settings' text has it."""
        return self.path if self.weight == 1.0 else f"{self.path}@{'' if self.weight is None else f'{self.weight:g}'}"


def read_loras(text: str) -> list[Lora]:
    """The LoRAs of a text like ``one.safetensors; two.safetensors@0.5``, as the backend reads it."""
    return [_lora(entry) for entry in filter(None, (part.strip() for part in text.split(";")))]


def _lora(entry: str) -> Lora:
    path, at, weight = entry.rpartition("@")
    if not at or weight.endswith(_ENDING):
        return Lora(entry)
    try:
        return Lora(path.strip(), float(weight))
    except ValueError:
        return Lora(path.strip(), None)


def write_loras(loras: Iterable[Lora]) -> str:
    """The text of some LoRAs."""
    return "; ".join(each.text for each in loras)


def place_of(name: str) -> Path:
    """A path as a person typed it: ``//`` is the .blend file's folder, ``~`` the home folder."""
    return Path(bpy.path.abspath(name.strip())).expanduser()


def absolute_models(request: Request) -> Request:
    """The same request without paths that begin at the .blend file, of which the worker knows nothing."""
    loading = request.loading
    loras = read_loras(loading.loras)
    if any(each.path.startswith("//") for each in loras):
        placed = [each._replace(path=_absolute(each.path)) for each in loras]
        loading = dataclasses.replace(loading, loras=write_loras(placed))
    beside = {name: _absolute(getattr(loading, name)) for name in NETWORKS}
    loading = dataclasses.replace(loading, **beside)
    return request.replace(model=_absolute(request.model), view_model=_absolute(request.view_model), loading=loading)


def _absolute(name: str) -> str:
    return bpy.path.abspath(name) if name.startswith("//") else name


def is_foreign(name: str) -> bool:
    """A model that did not come with the extension."""
    return name.strip() not in (BUILT_IN_MODEL, BUILT_IN_VIEW_MODEL, NO_MODEL)


def has_loading(settings: Any) -> bool:
    """A setting of loading is not what it is by itself."""
    return read_section(settings.loading, LoadingSettings) != LoadingSettings()
