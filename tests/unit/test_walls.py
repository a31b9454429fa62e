"""The walls of docs/architecture.md, kept by reading every import in the source; nothing is imported."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLENDER_ROOT_FILES = {"__init__.py", "preferences.py", "properties.py"}
BLENDER_FOLDERS = {"bridge", "operators", "panels"}
BLENDER_MODULES = {
    "bpy",
    "bpy_extras",
    "bpy_types",
    "bl_ui",
    "bl_operators",
    "mathutils",
    "gpu",
    "gpu_extras",
    "addon_utils",
    "bl_ext",
}
TENSOR_MODULES = {
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "numba",
    "huggingface_hub",
    "tinycudann",
    "cuda",
}
OWN_MODULES = {"backend", "dreamlathe", "bl_ext", "bridge", "operators", "panels", "preferences", "properties"}
TENSOR_FOLDERS = {"backend", "tests", "benchmarks"}
BLENDER_SIDE_MAY_IMPORT = {
    *("errors", "settings", "reference", "picture_options", "recipes", "request", "events", "cameras")
}

# The rooms of the backend from left to right: a room may import what stands left of it …
FLOW = (
    *(
        "errors",
        "settings",
        "reference",
        "picture_options",
        "sketch",
        "optimize_settings",
        "recipes",
        "request",
        "events",
    ),
    *("files", "threads", "devices", "cameras"),
    *("picture", "reference_files"),
    *("field", "rendering", "guidance", "depth", "meshing"),
    *("schedules", "health", "checkpoint", "optimize", "continuation", "job_log", "job_models", "job", "toybox"),
)
_PICTURES = ("picture", "reference_files")
# … but for these, which do not know each other.
STRANGERS = {
    "picture": {"settings", "events", "threads"},
    "field": {"events", "cameras", *_PICTURES},
    "rendering": {"events", *_PICTURES},
    "guidance": {"events", *_PICTURES, "field", "rendering"},
    "meshing": {"events", *_PICTURES, "guidance"},
    "depth": {"events", "field", "rendering"},
    "schedules": {*_PICTURES, "field", "rendering", "guidance", "meshing"},
    "health": {*_PICTURES, "guidance", "meshing"},
    "checkpoint": {*_PICTURES, "guidance", "meshing"},
    "continuation": {*_PICTURES, "field", "rendering", "guidance", "meshing"},
    "optimize": {"meshing"},
    "job_log": {*_PICTURES, "field", "rendering", "guidance", "meshing", "optimize", "continuation"},
    "toybox": {
        "reference_files",
        "events",
        "field",
        "rendering",
        "schedules",
        "health",
        "checkpoint",
        "continuation",
        "optimize",
        "job_log",
        "job",
    },
}
WAYS_IN = {"worker", "cli", "doctor", "installer", "__main__"}
STANDARD_LIBRARY_ONLY = {"errors", "settings", "reference", "request", "events", "files", "job_log", "installer"}
NUMPY_ONLY = {"cameras"}
WITHOUT_TENSORS = {"picture", "reference_files"}


@dataclass(frozen=True)
class Import:
    """One imported name: ``target`` is its full dotted path; within the extension, from the extension's root."""

    line: int
    target: tuple[str, ...]
    relative: bool


def imports(path: str, source: str) -> Iterator[Import]:
    """Every import of a file, those inside functions and the strings given to import_module included."""
    package = Path(path).parts[:-1]
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, tuple(name.name.split(".")), relative=False) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                above = node.level - 1
                base = ("..",) if above > len(package) else (*package[: len(package) - above], *base)
            for name in node.names:
                yield Import(node.lineno, (*base, name.name), relative=node.level > 0)
        elif isinstance(node, ast.Call):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            argument = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            if function in {"import_module", "__import__"} and isinstance(argument, str) and argument[0] != ".":
                yield Import(node.lineno, tuple(argument.split(".")), relative=False)


def violations(files: Mapping[str, str]) -> list[str]:
    """One line for each import that goes through a wall. ``files`` maps paths from the repository's root to sources."""
    return [
        f"{path}:{each.line}: {'.'.join(each.target)}: {why}"
        for path, source in sorted(files.items())
        for each in imports(path, source)
        for why in wrongs(Path(path).parts, each)
    ]


def wrongs(parts: tuple[str, ...], each: Import) -> Iterator[str]:
    """What is wrong with one import of the file at ``parts``."""
    top = each.target[0]
    in_backend = parts[0] == "backend"
    on_blender_side = parts[0] in BLENDER_FOLDERS or (len(parts) == 1 and parts[0] in BLENDER_ROOT_FILES)
    outside = not each.relative
    if outside and top in TENSOR_MODULES and parts[0] not in TENSOR_FOLDERS:
        yield "tensors stay in the backend"
    if not in_backend and not on_blender_side:
        return
    if top == "..":
        yield "reaches above the extension"
    if outside and top in OWN_MODULES:
        yield "inside the extension imports are relative"
        return
    if on_blender_side:
        yield from _wrongs_of_blender_side(each)
    if in_backend:
        yield from _wrongs_of_backend(room(parts), each)


def _wrongs_of_blender_side(each: Import) -> Iterator[str]:
    top = each.target[0]
    if each.relative and top == "backend" and each.target[1] not in BLENDER_SIDE_MAY_IMPORT:
        yield "of the backend, the Blender side knows only the request, events, errors and cameras"
    known = top in BLENDER_MODULES or top == "numpy" or top in sys.stdlib_module_names
    if not each.relative and top not in TENSOR_MODULES and not known:
        yield "Blender's Python does not have it"


def _wrongs_of_backend(here: str, each: Import) -> Iterator[str]:
    top = each.target[0]
    if not each.relative:
        if top in BLENDER_MODULES:
            yield "no Blender in the backend"
        elif here in STANDARD_LIBRARY_ONLY and top not in sys.stdlib_module_names:
            yield f"{here} needs the standard library alone"
        elif here in NUMPY_ONLY and top != "numpy" and top not in sys.stdlib_module_names:
            yield f"{here} needs numpy alone"
        elif here in WITHOUT_TENSORS and top in TENSOR_MODULES:
            yield f"{here} needs no tensors"
        return
    if top != "backend":
        yield "the backend knows nothing of the Blender side"
        return
    there = each.target[1]
    if there in may_not_import(here):
        yield f"{here} lies before {there} in the flow, or beside it"


def may_not_import(here: str) -> set[str]:
    """The rooms of the backend that a room must not import."""
    if here in WAYS_IN:
        return set()
    place = FLOW.index(here) if here in FLOW else 0
    return WAYS_IN | set(FLOW[place:]) - {here} | STRANGERS.get(here, set())


def room(parts: tuple[str, ...]) -> str:
    """The room of a file of the backend: its folder or its own name."""
    return Path(parts[1]).stem


def repository() -> dict[str, str]:
    """Every Python file of the repository, environments and results apart."""
    folders = ("backend", "bridge", "operators", "panels", "scripts", "wheels", "benchmarks", "docs", "tests")
    paths = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_no_import_goes_through_a_wall() -> None:
    files = repository()
    assert len(files) > 10
    assert violations(files) == []


def test_every_room_of_the_backend_has_its_place() -> None:
    rooms = {room(Path(path).parts) for path in repository() if path.startswith("backend/")} - {"__init__"}
    assert rooms <= set(FLOW) | WAYS_IN


def test_the_documented_rooms_are_the_rooms_with_walls() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (`backend/[^|]*?) \|", page, flags=re.MULTILINE)
    documented = {name for cell in first_cells for name in re.findall(r"`backend/(\w+)(?:\.py|/)`", cell)}
    assert documented == set(FLOW) | (WAYS_IN - {"__main__"})


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("backend/optimize.py", "import bpy"),
        ("backend/field/heads.py", "def f():\n    from mathutils import Vector"),
        ("operators/generate.py", "import torch.nn"),
        ("panels/main.py", "import importlib\nimportlib.import_module('torch')"),
        ("scripts/generate.py", "from diffusers import UNet2DConditionModel"),
        ("__init__.py", "from transformers import CLIPTokenizer"),
        ("backend/job.py", "from backend.request import Request"),
        ("operators/generate.py", "from dreamlathe.backend import request"),
        ("operators/generate.py", "from bl_ext.user_default.dreamlathe.backend import request"),
        ("operators/generate.py", "from ..backend import optimize"),
        ("operators/generate.py", "from ..backend.field import build_field"),
        ("operators/generate.py", "from ... import other_extension"),
        ("operators/generate.py", "import PIL"),
        ("backend/cameras.py", "from .. import preferences"),
        ("backend/cameras.py", "import torch"),
        ("backend/request.py", "import numpy as np"),
        ("backend/request.py", "from .cameras import rays"),
        ("backend/picture/read.py", "import torch"),
        ("backend/picture/framing.py", "from ..field import Field"),
        ("backend/guidance/__init__.py", "from ..picture import prepare"),
        ("backend/field/__init__.py", "from ..rendering import Renderer"),
        ("backend/guidance/__init__.py", "from ..field import Field"),
        ("backend/rendering/march.py", "from .. import optimize"),
        ("backend/meshing/bake.py", "if TYPE_CHECKING:\n    from ..job import run_job"),
        ("backend/optimize.py", "from . import worker"),
    ],
)
def test_a_violation_is_caught(path: str, source: str) -> None:
    found = violations({path: source})
    assert len(found) == 1
    assert found[0].startswith(f"{path}:{source.count(chr(10)) + 1}: ")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("__init__.py", "import bpy\nfrom . import preferences\nfrom .operators import CLASSES"),
        (
            "operators/generate.py",
            "from .. import __package__ as base\nfrom ..backend.request import Request\nimport numpy",
        ),
        ("backend/cli.py", "from . import job, worker\nfrom .optimize import optimize\nimport argparse"),
        (
            "backend/rendering/march.py",
            "import torch\nfrom . import kernels\nfrom ..field import Field\nfrom ..cameras import rays",
        ),
        ("backend/request.py", "import json\nfrom .errors import RequestError"),
        (
            "backend/picture/preview.py",
            "import scipy\nfrom ..cameras import rays\nfrom ..files import write_atomically",
        ),
        ("backend/job.py", "from .picture import prepare"),
        ("tests/unit/test_field.py", "import torch\nfrom backend.field import Field"),
        ("benchmarks/speed.py", "import torch"),
    ],
)
def test_an_honest_import_passes(path: str, source: str) -> None:
    assert violations({path: source}) == []
