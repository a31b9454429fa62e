"""Results as assets: found by their words, seen by their picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import bpy
from bpy.types import Object

from ..backend.request import Request

_SMALL_WORDS = {"a", "an", "the", "of", "with", "and", "in", "on", "at", "to"}


def mark_asset(result: Object, request: Request, picture: Path) -> None:
    """Mark an object as an asset: description and tags from its request, the picture as its preview."""
    result.asset_mark()
    data: Any = result.asset_data
    data.description = f"{request.title} (seed {request.seed}, {request.preset}, {request.model})"
    data.author = "Dreamlathe"
    for tag in tags_of(request):
        data.tags.new(tag, skip_if_exists=True)
    context = cast("Any", bpy.context)
    with context.temp_override(id=result):
        if picture.is_file():
            bpy.ops.ed.lib_id_load_custom_preview(filepath=str(picture))
        else:
            result.asset_generate_preview()


def tags_of(request: Request) -> list[str]:
    """The title's words that say something, and the tool's name."""
    words = re.findall(r"\w+", request.title.lower())
    return list(dict.fromkeys(["dreamlathe", *(word for word in words if word not in _SMALL_WORDS)]))
