"""The models that a job asks."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from . import guidance as room
from .events import Event, Message, Phase
from .guidance import DepthModel, Guidance
from .reference import camera_prompts
from .reference_files import ReferenceView, with_mirror_images
from .request import NO_MODEL, Request

Report = Callable[[Event], None]


def load_guidance(
    request: Request, references: tuple[ReferenceView, ...], device: torch.device, report: Report
) -> Guidance | None:
    """The models that the request asks: of the prompt, of the pictures, both (Magic123), or none."""

    def tell(text: str) -> None:
        report(Message("info", text))

    parts: dict[str, room.WeightedGuidance] = {}
    if request.shows_pictures:
        report(Phase("model", f"Loading {request.view_model} on {device}."))
        # Several pictures show the other side by themselves, and each one more is one more row of the network.
        views = with_mirror_images(references) if request.mirrored and len(references) == 1 else references
        pictures = [
            room.ReferencePicture(torch.from_numpy(view.shown.rgba).permute(2, 0, 1), view.camera, view.weight)
            for view in views
        ]
        shown = room.load_view_guidance(
            request.view_model, pictures, request.view_guidance, device, downloads_allowed(), request.loading, tell
        )
        parts["pictures"] = room.WeightedGuidance(shown, 1.0)
    if request.asks_prompt:
        report(Phase("model", f"Loading {request.model} on {device}."))
        asked = room.load_guidance(
            request.model, request.prompt, request.negative_prompt, request.guidance, device, downloads_allowed(),
            request.loading, tell, camera_prompts(request.cameras),
        )  # fmt: skip
        parts["prompt"] = room.WeightedGuidance(asked, request.view_guidance.prompt_weight if parts else 1.0)
    if len(parts) > 1:
        return room.CombinedGuidance(parts)
    return next((part.guidance for part in parts.values()), None)


def downloads_allowed() -> bool:
    """Whether a model may be fetched from the Hub: DREAMLATHE_DOWNLOADS says so, which Blender sets if it may."""
    return os.environ.get("DREAMLATHE_DOWNLOADS", "") == "1"


def load_depth(request: Request, device: torch.device, report: Report) -> DepthModel | None:
    """What sees depth in the request's pictures, or nothing."""
    model = request.depth_model
    if model == NO_MODEL:
        return None
    report(Phase("model", f"Loading {model} on {device}."))
    return room.load_depth_model(model, device, downloads_allowed(), lambda text: report(Message("info", text)))
