"""The words a model says it knows: the built-in one's, and those of any folder with a ``vocabulary.json``. No bpy."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..backend.request import BUILT_IN_MODEL
from .environment import ROOT

_FILE = "vocabulary.json"
_BUILT_IN = ROOT / "backend" / "toybox" / "weights"
Lists = dict[str, tuple[str, ...]]


def vocabulary(model: str) -> Lists:
    """The lists of words by name, without the one of all words; empty for a model that takes any words."""
    name = model.strip()
    folder = _BUILT_IN if name == BUILT_IN_MODEL else Path(name).expanduser()
    path = folder / _FILE
    try:
        return _read(path, path.stat().st_mtime_ns) if name else {}
    except OSError:
        return {}


@lru_cache(maxsize=8)
def _read(path: Path, _stamp: int) -> Lists:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): tuple(str(word) for word in words) for name, words in data.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def shown(lists: Lists) -> Lists:
    """The lists that sort the words for people."""
    return {name: words for name, words in lists.items() if name != "words" and words}


def words_of(lists: Lists) -> frozenset[str]:
    """Every known word."""
    return frozenset(word for words in lists.values() for word in words)


def unknown(prompt: str, lists: Lists) -> list[str]:
    """The words of a prompt that the model does not know, in lower case; the worker's own check is stricter."""
    known = words_of(lists)
    if not known:
        return []
    found = re.findall(r"[^\W_]+(?:[-'][^\W_]+)*", prompt.lower())
    return [word for word in dict.fromkeys(found) if word not in known and not _parts_known(word, known)]


def _parts_known(word: str, known: frozenset[str]) -> bool:
    parts = re.split(r"[-']", word)
    return len(parts) > 1 and all(part in known for part in parts)


def nearest(word: str, lists: Lists) -> str:
    """The known word that is written most alike, or nothing."""
    import difflib  # noqa: PLC0415 - Blender's start-up does without

    return next(iter(difflib.get_close_matches(word, sorted(words_of(lists)), n=1, cutoff=0.75)), "")


def replaced(prompt: str, word: str, by: str) -> str:
    """The prompt with a word replaced."""
    return re.sub(rf"\b{re.escape(word)}\b", by, prompt, flags=re.IGNORECASE)
