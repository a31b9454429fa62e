"""What the fields of the sidebar suggest while a person types. Must not reach ``bpy``; see :mod:`.callbacks`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..backend.request import BUILT_IN_MODEL, BUILT_IN_VIEW_MODEL, NO_MODEL
from .vocabulary import vocabulary, words_of

if TYPE_CHECKING:
    from bpy.types import Context

_prompts: list[str] = []
_models: list[str] = []
_view_models: list[str] = []
_MOST = 30


def set_prompts(prompts: Iterable[str]) -> None:
    """The prompts of past jobs, the newest first."""
    _prompts[:] = prompts


def set_models(models: Iterable[str]) -> None:
    """The models that were used, or are there."""
    _models[:] = models


def set_view_models(models: Iterable[str]) -> None:
    """The models that were shown pictures."""
    _view_models[:] = models


def suggest_prompts(settings: Any, _context: Context | None, text: str) -> list[str]:
    """Past prompts that hold what was typed; and, for a model that knows few words, those the last word may become."""
    typed = text.lower().strip()
    found = [prompt for prompt in _prompts if typed in prompt.lower()]
    begun, _, last = text.rpartition(" ")
    known = sorted(words_of(vocabulary(settings.model)))
    if last:
        head = f"{begun} " if begun else ""
        found += [f"{head}{word}" for word in known if word.startswith(last.lower()) and word.isalpha()]
    return list(dict.fromkeys(found))[:_MOST]


def suggest_models(_settings: Any, _context: Context | None, text: str) -> list[str]:
    """The built-in model and those that were used or are in the models' folder."""
    return _fitting(text, [BUILT_IN_MODEL, *_models])


def suggest_view_models(_settings: Any, _context: Context | None, text: str) -> list[str]:
    """The same of those that are shown pictures; and none."""
    return _fitting(text, [BUILT_IN_VIEW_MODEL, NO_MODEL, *_view_models, *_models])


def _fitting(text: str, models: list[str]) -> list[str]:
    typed = text.lower().strip()
    offered = list(dict.fromkeys(models))
    return [model for model in offered if typed in model.lower()] or offered
