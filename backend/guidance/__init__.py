"""Guidance: a 2D diffusion model that judges rendered images, behind one interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..devices import dtype_of
from ..request import BUILT_IN_MODEL, GuidanceSettings, LoadingSettings, ViewGuidanceSettings
from ..settings import check
from .combined import CombinedGuidance, WeightedGuidance, painter
from .families import family_of, module, module_of
from .interface import (
    DepthModel,
    Guidance,
    GuidanceResult,
    Maps,
    Painter,
    Side,
    Sketcher,
    ViewMapsModel,
    foretold_by,
    sides_of,
    together,
)
from .memory import Tell, silent, spared
from .references import ReferencePicture
from .vocabulary import Vocabulary

__all__ = [
    "CombinedGuidance",
    "DepthModel",
    "Guidance",
    "GuidanceResult",
    "Maps",
    "Painter",
    "ReferencePicture",
    "Side",
    "Sketcher",
    "ViewMapsModel",
    "WeightedGuidance",
    "foretold_by",
    "load_depth_model",
    "load_guidance",
    "load_view_guidance",
    "painter",
    "sides_of",
    "spared",
    "together",
]


def load_guidance(
    model: str,
    prompt: str,
    negative_prompt: str,
    settings: GuidanceSettings,
    device: torch.device,
    allow_download: bool = False,
    loading: LoadingSettings | None = None,
    tell: Tell = silent,
    camera_prompts: Sequence[str] = (),
) -> Guidance:
    """Load ``model`` ("toybox", a diffusers folder, a Hub id, or a .safetensors checkpoint) for prompts.

    These are the job's, and those that single cameras have of their own (:attr:`..cameras.CameraBatch.own_prompt`).

    Without ``allow_download`` a Hub id must be in the local cache. ``tell`` is told what a person should know: the
    plan for the memory, a download's progress, words that do not fit. Raises ModelError for a model or LoRA that is
    missing, broken or of a family that is not known here, VocabularyError or RequestError for a prompt the model cannot
    read, and SetupError if the backend's Python lacks a library.
    """
    rooms = module(".model_folder"), module(".loading"), module(".text_encoders"), module(".lora")
    folders, networks, encoders, loras = rooms
    loading = loading or LoadingSettings()
    check(loading, "loading.")
    folder = folders.open_model(
        model, allow_download, tell, lambda name, place: family_of(name, place, "prompt"), half=_half(device, loading)
    )
    room = module_of(family_of(folder.family, folder.path, "prompt"))
    words = Vocabulary.read(folder.path)
    if words is not None:
        for text in (prompt, negative_prompt, *camera_prompts):
            words.check(text)
    with networks.quiet():
        added = loras.read_loras(loading.loras, folder.family)
        loras.check_used(added, tuple(folder.classes))
        how = networks.Loading(device, loading, allow_download, tell, added, light=model == BUILT_IN_MODEL)
        guidance = room.load(folder, encoders.Texts(prompt, negative_prompt, tuple(camera_prompts)), settings, how)
        _lay_out(guidance, loading, tell)
    return guidance


def load_view_guidance(
    model: str,
    references: Sequence[ReferencePicture],
    settings: ViewGuidanceSettings,
    device: torch.device,
    allow_download: bool = False,
    loading: LoadingSettings | None = None,
    tell: Tell = silent,
) -> Guidance:
    """Load ``model`` ("toybox-views", a diffusers folder, or a Hub id) and show it one or more pictures of the object.

    Without ``allow_download`` a Hub id must be in the local cache; ``tell`` is told what a person should know. Raises
    ModelError for a model that is missing, broken or of a family that is not shown pictures, RequestError for pictures
    or settings it cannot use, and SetupError if the backend's Python lacks a library.
    """
    folders, networks = module(".model_folder"), module(".loading")
    loading = loading or LoadingSettings()
    check(settings, "view_guidance.")
    check(loading, "loading.")
    folder = folders.open_model(
        model, allow_download, tell, lambda name, place: family_of(name, place, "pictures"), half=_half(device, loading)
    )
    room = module_of(family_of(folder.family, folder.path, "pictures"))
    with networks.quiet():
        guidance = room.load(folder, references, settings, networks.Loading(device, loading, allow_download, tell))
        _lay_out(guidance, loading, tell)
    return guidance


def load_depth_model(model: str, device: torch.device, allow_download: bool = False, tell: Tell = silent) -> DepthModel:
    """Load ``model`` ("toybox-depth", a folder of transformers' depth estimation, or a Hub id).

    Without ``allow_download`` a Hub id must be in the local cache. Raises ModelError for a model that is missing,
    broken, or no depth model that is known here, and SetupError if the backend's Python lacks a library.
    """
    with module(".loading").quiet():
        return module(".depth_model").load(model, device, allow_download, tell)


def _half(device: torch.device, loading: LoadingSettings) -> bool:
    """Whether the networks are going to be in half precision, so that such weights are enough."""
    return dtype_of(loading.precision, device, torch.float16) != torch.float32


def _lay_out(guidance: Any, loading: LoadingSettings, tell: Tell) -> None:
    """Choose the plan for the memory; where that does not even load, the next one."""
    try:
        said = guidance.layout.choose(loading.memory)
    except torch.OutOfMemoryError:
        said = guidance.economise()
        if said is None:
            raise
    tell(said)
