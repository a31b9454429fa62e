"""The one register of model families: which module reads a pipeline of diffusers, and what it is shown.

A module is imported when a model of its family is loaded. One of a prompt has ``load(folder, texts, settings, how)``,
one of pictures ``load(folder, references, settings, how)``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import ModelError, SetupError


@dataclass(frozen=True)
class Family:
    """One family of models."""

    title: str
    module: str
    shown: Literal["prompt", "pictures"] = "prompt"


FAMILIES = {
    "StableDiffusionPipeline": Family("Stable Diffusion 1.x and 2.x", ".stable_diffusion"),
    "StableDiffusionXLPipeline": Family("Stable Diffusion XL", ".stable_diffusion_xl"),
    "IFPipeline": Family("DeepFloyd IF, first stage", ".deepfloyd_if"),
    "StableDiffusion3Pipeline": Family("Stable Diffusion 3 and 3.5", ".stable_diffusion_3"),
    "FluxPipeline": Family("FLUX.1", ".flux"),
    "Zero123Pipeline": Family("Zero-1-to-3", ".zero123", "pictures"),
    "Zero1to3StableDiffusionPipeline": Family("Zero-1-to-3", ".zero123", "pictures"),
}
"""By the name of the pipeline in model_index.json."""


def family_of(name: str, place: object, shown: Literal["prompt", "pictures"]) -> Family:
    """The family of the pipeline ``name``, of a model at ``place``; ModelError if it is not shown what is ``shown``."""
    family = FAMILIES.get(name)
    if family is not None and family.shown == shown:
        return family
    fitting = " or ".join(known for known, each in FAMILIES.items() if each.shown == shown)
    hint = f"Choose a model whose model_index.json says {fitting}."
    if shown == "pictures":
        raise ModelError(f"{place} is a {name}, which cannot be shown a picture.", hint)
    if family is not None:
        raise ModelError(f"{place} is a {name}, which is shown pictures and cannot read a prompt.", hint)
    raise ModelError(f"{place} is a {name}, which cannot guide.", hint)


def module_of(family: Family) -> Any:
    """The family's module; SetupError if the backend's Python lacks a library."""
    return module(family.module)


def module(name: str) -> Any:
    """A module of this room, imported on use: diffusers and transformers take seconds, and the interface needs neither.

    Raises SetupError if the backend's Python lacks a library.
    """
    try:
        return importlib.import_module(name, __package__)
    except ImportError as error:
        raise SetupError(f"The backend's Python lacks a library ({error}).", "Set the environment up again.") from error
