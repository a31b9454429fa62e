"""Guidance: a 2D diffusion model that judges rendered images, behind one interface."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import ModelError, SetupError
from ..request import GuidanceSettings, ViewGuidanceSettings
from ..settings import check
from .combined import CombinedGuidance, WeightedGuidance
from .interface import Guidance, GuidanceResult, Painter
from .references import ReferencePicture

__all__ = [
    "CombinedGuidance",
    "Guidance",
    "GuidanceResult",
    "Painter",
    "ReferencePicture",
    "WeightedGuidance",
    "load_guidance",
    "load_view_guidance",
]

_FAMILIES = {"StableDiffusionPipeline": ".stable_diffusion"}
"""Module of each family by the pipeline's class; a module is imported when a model of its family is loaded."""
_VIEW_FAMILIES = {"Zero123Pipeline": ".zero123", "Zero1to3StableDiffusionPipeline": ".zero123"}
"""The same of families that are shown pictures instead of a prompt."""


def load_guidance(
    model: str,
    prompt: str,
    negative_prompt: str,
    settings: GuidanceSettings,
    device: torch.device,
    allow_download: bool = False,
    camera_prompts: Sequence[str] = (),
) -> Guidance:
    """Load ``model`` ("toybox", a diffusers folder, or a Hub id) for one prompt, and those of single cameras.

    Without ``allow_download`` a Hub id must be in the local cache. Raises ModelError for a model that is missing,
    broken or of a family that is not known here, VocabularyError or RequestError for a prompt the model cannot read,
    and SetupError if the backend's Python lacks a library.
    """
    folder = _module(".model_folder").open_model(model, allow_download)
    if folder.family in _VIEW_FAMILIES:
        raise ModelError(
            f"{folder.path} is a {folder.family}, which is shown pictures and cannot read a prompt.",
            f"Choose a model whose model_index.json says {' or '.join(_FAMILIES)}.",
        )
    if folder.family not in _FAMILIES:
        raise ModelError(
            f"{folder.path} is a {folder.family}, which cannot guide.",
            f"Choose a model whose model_index.json says {' or '.join(_FAMILIES)}.",
        )
    return _module(_FAMILIES[folder.family]).load(folder, prompt, negative_prompt, settings, device, camera_prompts)


def load_view_guidance(
    model: str,
    references: Sequence[ReferencePicture],
    settings: ViewGuidanceSettings,
    device: torch.device,
    allow_download: bool = False,
) -> Guidance:
    """Load ``model`` ("toybox-views", a diffusers folder, or a Hub id) and show it one or more pictures of the object.

    Without ``allow_download`` a Hub id must be in the local cache. Raises ModelError for a model that is missing,
    broken or of a family that is not shown pictures, RequestError for pictures or settings it cannot use, and
    SetupError if the backend's Python lacks a library.
    """
    check(settings, "view_guidance.")
    folder = _module(".model_folder").open_model(model, allow_download)
    if folder.family not in _VIEW_FAMILIES:
        raise ModelError(
            f"{folder.path} is a {folder.family}, which cannot be shown a picture.",
            f"Choose a model whose model_index.json says {' or '.join(_VIEW_FAMILIES)}.",
        )
    return _module(_VIEW_FAMILIES[folder.family]).load(folder, references, settings, device)


def _module(name: str) -> Any:
    # Imported on use: diffusers and transformers take seconds to import, and the interface needs neither.
    try:
        return importlib.import_module(name, __package__)
    except ImportError as error:
        raise SetupError(f"The backend's Python lacks a library ({error}).", "Set the environment up again.") from error
