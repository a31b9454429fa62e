"""A model's vocabulary: a model that knows few words says so instead of guessing.

A diffusers folder may hold a ``vocabulary.json``: an object of lists of words. ``words`` is everything the model knows;
the other lists (``kinds``, ``colours``, …) sort them for people. A folder without the file takes any prompt.
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError, VocabularyError

FILE = "vocabulary.json"
_PUNCTUATION = ".,;:!?\"'()[]-–—’“”"
_INNER = re.compile(f"[{re.escape(_PUNCTUATION)}]+")


@dataclass(frozen=True)
class Vocabulary:
    """The words a model knows, in lower case, by the name of their list."""

    lists: dict[str, tuple[str, ...]]

    @classmethod
    def read(cls, folder: Path) -> Vocabulary | None:
        """The vocabulary of a model's folder, None if it has none; ModelError if the file is broken."""
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            data: Any = json.loads(path.read_text(encoding="utf-8"))
            lists = {str(name): _lower(words) for name, words in data.items() if isinstance(words, list)}
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"{path} cannot be read ({error}).", "Copy the model anew.") from error
        if not any(lists.values()):
            raise ModelError(f"{path} lists no words.", 'Write {"words": […]}, or remove the file.')
        return cls(lists)

    @property
    def words(self) -> frozenset[str]:
        """Every known word."""
        return frozenset(word for words in self.lists.values() for word in words)

    def check(self, prompt: str) -> None:
        """Raise VocabularyError, with all that the model knows, for the first words of ``prompt`` it does not know."""
        unknown = list(dict.fromkeys(word for word in _split(prompt, self.words) if word not in self.words))
        if not unknown:
            return
        named = ", ".join(f'"{word}"' for word in unknown)
        near = difflib.get_close_matches(unknown[0], sorted(self.words), n=1, cutoff=0.75)
        question = f'Did you mean "{near[0]}"? ' if near else ""
        raise VocabularyError(f"The model does not know {named}.", f"{question}It knows {self._listing()}.")

    def _listing(self) -> str:
        named = {name: words for name, words in self.lists.items() if name != "words" and words}
        sorted_out = {word for words in named.values() for word in words}
        others = sorted(self.words - sorted_out)
        parts = [f"{name}: {', '.join(words)}" for name, words in named.items()]
        if others:
            parts.append(f"{'other words' if named else 'the words'}: {', '.join(others)}")
        return "; ".join(parts)


def _lower(words: Any) -> tuple[str, ...]:
    return tuple(str(word).lower() for word in words)


def _split(prompt: str, known: frozenset[str]) -> list[str]:
    """The words of a prompt, lower case; a known word may hold punctuation ("t-rex"), an unknown one is split at it."""
    words: list[str] = []
    for chunk in unicodedata.normalize("NFC", prompt).lower().split():
        bare = chunk.strip(_PUNCTUATION)
        words += [bare] if bare in known else [part for part in _INNER.split(bare) if part]
    return words
