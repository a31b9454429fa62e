"""Files of weights: which of a part's are read, and whether they are whole. Safetensors only: no pickle is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import ModelError

_NAME = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:"
    r"(?:\.(?P<before>[A-Za-z]\w*))?(?:-\d+-of-\d+)?(?:\.(?P<behind>[A-Za-z]\w*))?\.safetensors|"
    r"\.safetensors\.index(?:\.(?P<listed>[A-Za-z]\w*))?\.json)"
)
"""A variant stands before a shard's number or, as older releases of diffusers wrote it, behind."""
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def variants(names: Iterable[str]) -> dict[str | None, list[str]]:
    """The files of weights among ``names`` (with their list of shards) by variant; None is the plain one."""
    found: dict[str | None, list[str]] = {}
    for name in sorted(names):
        if match := _NAME.fullmatch(name):
            found.setdefault(match["before"] or match["behind"] or match["listed"], []).append(name)
    return {key: files for key, files in found.items() if any(name.endswith(".safetensors") for name in files)}


def chosen_variant(names: Iterable[str]) -> str | None:
    """The variant that is read: the plain one, or the first by its name ("fp16")."""
    known = variants(names)
    return None if None in known else min(key for key in known if key)


def chosen_weights(names: Iterable[str], *, half: bool = False) -> list[str]:
    """The files of weights that are fetched, their list of shards included; none if there are none.

    Those of the variant fp16 where ``half`` precision is enough and there are any.
    """
    listed = list(names)
    known = variants(listed)
    if half and "fp16" in known:
        return known["fp16"]
    return known[chosen_variant(listed)] if known else []


def missing_shards(place: Path, files: Iterable[str]) -> list[str]:
    """Shards that the list of shards among ``files`` names and that are not in ``place``."""
    missing: set[str] = set()
    for name in files:
        if name.endswith(".json"):
            try:
                data: Any = json.loads((place / name).read_text(encoding="utf-8"))
                missing |= {shard for shard in set(data["weight_map"].values()) if not (place / shard).is_file()}
            except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
                raise ModelError(f"{place / name} cannot be read ({error}).", "Copy the model anew.") from error
    return sorted(missing)


def check_safetensors(path: Path) -> None:
    """Opening reads the header and compares it with the file's length, so a cut-off download is noticed here."""
    try:
        with safe_open(path, framework="pt") as file:
            empty = not list(file.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}).", "Copy the model anew.") from error
    if empty:
        raise ModelError(f"{path} holds no weights.", "Copy the model anew.")
