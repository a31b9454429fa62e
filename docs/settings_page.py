"""Write docs/settings.md from the request's dataclasses and the sentences under their fields. Run by ``make docs``.

And bridge/descriptions.json, the sentences alone: reading the sources would be a tenth of the add-on's start-up.
``python docs/settings_page.py`` writes both; tests/unit/test_settings_page.py keeps them current.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import sys
import typing
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "settings.md"
DESCRIPTIONS = ROOT / "bridge" / "descriptions.json"
INTRODUCTION = """# Settings

Every value of a request: what it means, its default and what it may be. `request.json` in a result's folder holds them
all; the same request gives the same mesh. A setting is named by its dotted path, for example
`guidance.guidance_scale`. Written by `make docs` from `backend/request.py`.
"""


def page() -> str:
    """The whole page, in Markdown."""
    request, reference = _settings()
    nested = _nested(request)
    parts = [INTRODUCTION, "## The request\n", _table(request.Request, "", set(nested))]
    parts += ["## Presets\n", "Where the presets differ; everything else is at its default.\n", _presets(request)]
    for name, kind in nested.items():
        parts += [f"## {name}\n", _first_paragraph(kind), _table(kind, f"{name}.", set())]
    for title, each in (("A camera of `cameras`", request.FixedCamera), ("A picture of `references`", reference)):
        parts += [f"## {title}\n", _first_paragraph(each), _table(each, "", set())]
    return "\n".join(parts)


def descriptions() -> str:
    """The sentences of all settings without their full stops, by class and field, as JSON."""
    request, reference = _settings()
    kinds = [*_nested(request).values(), reference]
    told = {kind.__name__: {name: text.rstrip(".") for name, text in sentences(kind).items()} for kind in kinds}
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def _settings() -> tuple[Any, type[Any]]:
    """The module of requests, and the class of a request's pictures."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from backend import request
    from backend.reference import ReferenceImage

    return request, ReferenceImage


def _nested(request: Any) -> dict[str, type[Any]]:
    """The classes of settings, by their names in a request."""
    hints = typing.get_type_hints(request.Request)
    names = [item.name for item in dataclasses.fields(request.Request)]
    return {name: hints[name] for name in names if dataclasses.is_dataclass(hints[name])}


def sentences(kind: type[Any]) -> dict[str, str]:
    """The strings under a dataclass's fields, by field."""
    body = typing.cast("ast.ClassDef", ast.parse(inspect.getsource(kind)).body[0]).body
    found: dict[str, str] = {}
    for node, below in itertools.pairwise(body):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        value = below.value if isinstance(below, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            found[node.target.id] = " ".join(value.value.split())
    return found


def _table(kind: Any, prefix: str, without: set[str]) -> str:
    texts, hints = sentences(kind), typing.get_type_hints(kind)
    rows = ["| setting | default | may be | meaning |", "|---|---|---|---|"]
    for item in dataclasses.fields(kind):
        if item.name not in without:
            choices = _choices(hints[item.name], item.metadata)
            text = texts[item.name].replace("|", "\\|")
            rows.append(f"| `{prefix}{item.name}` | {_default(item)} | {choices} | {text} |")
    return "\n".join(rows) + "\n"


def _default(item: dataclasses.Field[Any]) -> str:
    if item.default is dataclasses.MISSING:
        return "none: it must be given"
    if item.default is None:
        return "none"
    return f"`{_plain(item.default)}`" if item.default not in ("", ()) else "empty"


def _choices(kind: Any, metadata: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return ", ".join(f"`{each}`" for each in typing.get_args(kind))
    if "low" in metadata:
        numbers = f"{_plain(metadata['low'])} to {_plain(metadata['high'])}"
        return f"two numbers, {numbers}, the lower first" if typing.get_origin(kind) is tuple else numbers
    inner = next((each for each in typing.get_args(kind) if dataclasses.is_dataclass(each)), None)
    if inner is not None:
        noun = {"FixedCamera": "camera", "ReferenceImage": "picture"}[typing.cast("type[Any]", inner).__name__]
        return f"a list of {noun}s, or empty" if typing.get_origin(kind) is tuple else f"a {noun}, or none"
    return {bool: "true or false", str: "text", int: "a whole number", float: "a number"}.get(kind, "numbers")


def _presets(request: Any) -> str:
    """What the presets set apart from one another."""
    names = typing.get_args(request.PresetName)
    flat = {name: _flat(dataclasses.asdict(request.preset(name, "x"))) for name in names}
    rows = ["| setting | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for setting in flat[names[0]]:
        values = [flat[name][setting] for name in names]
        if setting != "preset" and len(set(values)) > 1:
            rows.append(f"| `{setting}` | " + " | ".join(f"`{_plain(value)}`" for value in values) + " |")
    return "\n".join(rows) + "\n"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _plain(value: Any) -> str:
    """A number, or several, without needless digits; true and false as in JSON."""
    if isinstance(value, tuple):
        return " … ".join(_plain(each) for each in typing.cast("tuple[Any, ...]", value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _first_paragraph(kind: Any) -> str:
    return inspect.cleandoc(kind.__doc__ or "") + "\n"


if __name__ == "__main__":
    for path, text in ((PAGE, page()), (DESCRIPTIONS, descriptions())):
        path.write_text(text, encoding="utf-8")
        print(f"Wrote {path.relative_to(ROOT)}.")
