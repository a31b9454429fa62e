"""Frozen dataclasses as settings: bounds, strict reading from JSON, reading from typed text. Standard library only.

Knows no particular setting; :mod:`.request` says what there is. Every failure is a RequestError of one sentence that
names the setting by its dotted path.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, Literal

from .errors import RequestError

_NOUNS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def bounded(default: Any, low: float, high: float) -> Any:
    """A dataclass field whose number (or each number of its tuple) must lie in [low, high]."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


def check(value: Any, path: str = "") -> None:
    """Check types, bounds and the order of ranges, all the way down."""
    hints = typing.get_type_hints(type(value))
    for item in dataclasses.fields(value):
        name = f"{path}{item.name}"
        content = getattr(value, item.name)
        _check_type(hints[item.name], content, name)
        if dataclasses.is_dataclass(content):
            check(content, f"{name}.")
        elif isinstance(content, tuple) and content and dataclasses.is_dataclass(content[0]):
            for index, entry in enumerate(content):
                check(entry, f"{name}[{index}].")
        elif "low" in item.metadata:
            _check_numbers(content, name, item.metadata["low"], item.metadata["high"])


def _check_type(kind: Any, content: Any, name: str) -> None:
    """Raise RequestError unless ``content`` is of the type ``kind`` (an int will do for a float)."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if content not in arguments:
            raise RequestError(f"{name} is {content!r}.", f"Choose one of {', '.join(map(repr, arguments))}.")
    elif origin is tuple:
        if not isinstance(content, tuple):
            raise RequestError(f"{name} is {_short(content)}.", "It must be a tuple.")
        entries = typing.cast("tuple[Any, ...]", content)
        each = arguments[:1] * len(entries) if arguments[-1] is Ellipsis else arguments
        if len(each) != len(entries):
            raise RequestError(f"{name} has {len(entries)} entries.", f"It needs {len(each)}.")
        for index, (entry_kind, entry) in enumerate(zip(each, entries, strict=True)):
            _check_type(entry_kind, entry, f"{name}[{index}]")
    elif kind is float or kind is int:
        numbers = (int, float) if kind is float else int
        if isinstance(content, bool) or not isinstance(content, numbers):
            raise RequestError(f"{name} is {_short(content)}.", f"It must be {_NOUNS[kind]}.")
    elif not isinstance(content, kind):
        raise RequestError(f"{name} is {_short(content)}.", f"It must be {_noun(kind)}.")
    elif isinstance(content, str) and not _is_text(content):
        raise RequestError(f"{name} holds characters that are not text.", "Type it again.")


def _noun(kind: Any) -> str:
    return _NOUNS.get(kind) or getattr(kind, "__name__", str(kind))


def _short(content: Any) -> str:
    """The value as a message shows it."""
    try:
        text = repr(content)
    except ValueError:  # an integer of thousands of digits
        return "a very large number"
    return text if len(text) <= 60 else f"{text[:57]}…"


def _is_text(content: str) -> bool:
    """Without lone surrogates and control characters, which no file, pipe or tokenizer takes."""
    return not any(0xD800 <= ord(c) <= 0xDFFF or (ord(c) < 32 and c not in "\t\n\r") for c in content)


def _check_numbers(content: Any, name: str, low: float, high: float) -> None:
    numbers = content if isinstance(content, tuple) else (content,)
    for number in numbers:
        if isinstance(number, float) and not math.isfinite(number):
            raise RequestError(f"{name} is {number}.", f"Give a number between {_plain(low)} and {_plain(high)}.")
        if not low <= number <= high:
            raise RequestError(f"{name} is {_short(number)}.", f"It must be between {_plain(low)} and {_plain(high)}.")
    if isinstance(content, tuple) and content[0] > content[1]:
        raise RequestError(f"{name} goes from {content[0]:g} down to {content[1]:g}.", "Give the lower value first.")


def _plain(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else f"{number:g}"


def build(kind: Any, data: Any, path: str = "") -> Any:
    """Make a dataclass (or a plain value) of ``kind`` from parsed JSON, strictly."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, data, path)
    if origin is types.UnionType:  # something, or None
        return None if data is None else build(arguments[0], data, path)
    if origin is tuple:
        if not isinstance(data, list):
            raise RequestError(f"{path} is {_short(data)}.", "Write a list.")
        entries = typing.cast("list[Any]", data)
        each = list(arguments[:1]) * len(entries) if arguments[-1] is Ellipsis else list(arguments)
        if len(each) != len(entries):
            raise RequestError(f"{path} has {len(entries)} entries.", f"It needs {len(each)}.")
        return tuple(build(k, d, f"{path}[{i}]") for i, (k, d) in enumerate(zip(each, entries, strict=True)))
    _check_type(kind, data, path)
    try:
        return float(data) if kind is float else data
    except OverflowError:
        raise RequestError(f"{path} is {_short(data)}.", "Give a smaller number.") from None


def _build_dataclass(kind: Any, data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise RequestError(f"{path or 'The request'} is not an object.", "Write {…}.")
    entries = typing.cast("dict[str, Any]", data)
    hints = typing.get_type_hints(kind)
    names = [item.name for item in dataclasses.fields(kind)]
    dot = f"{path}." if path else ""
    for name in entries:
        if name not in names:
            raise RequestError(f"{_short(dot + name)} is not a setting.", f"Settings are: {', '.join(sorted(names))}.")
    values = {name: build(hints[name], entry, f"{dot}{name}") for name, entry in entries.items()}
    required = [f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING]
    for name in required:
        if name not in values:
            raise RequestError(f"{dot}{name} is missing.", "Give it.")
    return kind(**values)


def replace_path(value: Any, path: str, text: str, parent: str = "") -> Any:
    """A copy of the settings ``value`` with the entry at the dotted ``path`` read from ``text``, bounds unchecked.

    Raises RequestError for an entry that does not exist and for text that is no such value.
    """
    hints = typing.get_type_hints(type(value))
    name, _, rest = path.partition(".")
    nested = name in hints and dataclasses.is_dataclass(hints[name])
    listed = name in hints and typing.get_origin(hints[name]) is tuple and Ellipsis in typing.get_args(hints[name])
    if name not in hints or listed or nested != bool(rest):
        known = ", ".join(sorted(hints))
        raise RequestError(f"{_short(parent + path)} is not a setting.", f"There are: {known}.")
    if nested:
        content = replace_path(getattr(value, name), rest, text, f"{parent}{name}.")
    else:
        content = _parse(hints[name], text, parent + path)
    return dataclasses.replace(value, **{name: content})


def _parse(kind: Any, text: str, path: str) -> Any:
    """A plain value of ``kind`` from what a person typed."""
    if typing.get_origin(kind) is tuple:
        parts = text.strip().strip("()[]").split(",")
        kinds = typing.get_args(kind)
        if len(parts) != len(kinds):
            raise RequestError(f"{path} is {_short(text)}.", f"Write {len(kinds)} numbers with a comma.")
        return tuple(_parse(k, part, path) for k, part in zip(kinds, parts, strict=True))
    if kind is bool:
        if text.strip().lower() not in _SWITCHES:
            raise RequestError(f"{path} is {_short(text)}.", "Write true or false.")
        return _SWITCHES[text.strip().lower()]
    if kind in (int, float):
        try:
            return kind(text)
        except (ValueError, OverflowError):
            raise RequestError(f"{path} is {_short(text)}.", f"It must be {_NOUNS[kind]}.") from None
    return text
