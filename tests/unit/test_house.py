"""The house's rules: short files and functions, one version, exact locks, a licence, nothing of one machine."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FILE = 400
LONGEST_TEST_FILE = 500
"""Tests may be longer: they hold tables of cases."""
LONGEST_FUNCTION = 60
USUAL_FUNCTION = 40
LONG_FUNCTIONS = 0.05
"""Share of functions that may be longer than usual."""
TEXT = {".py", ".md", ".toml", ".lock", ".json", ".yml", ".yaml", ".txt", ".cfg", ""}
FORBIDDEN = {
    "a path of one machine": r"/(?:work|root|home/\w+|Users/\w+)/",
    "an address to install from": r"--(?:extra-)?index-url|--find-links|pypi\.org|download\.pytorch\.org",
    "a token": r"\b(?:hf|ghp)_[A-Za-z0-9]{20}",
}
OPTIONAL_MODULES = {"tinycudann"}
LOCKS = sorted((ROOT / "wheels").glob("*.lock"))


def known_files() -> list[Path]:
    """What git tracks, or would track if it were added; everything, where this is no repository."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listed = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if "/." not in path.as_posix()]
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


FILES = known_files()
SOURCES = [path for path in FILES if path.suffix == ".py"]


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Name and number of lines, docstring apart, of every function of a source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            string = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            documented = string and isinstance(getattr(first, "value", None), ast.Constant)
            docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def pins(lock: Path) -> dict[str, str]:
    """Distribution name, normalised, to version."""
    lines = [line for line in lock.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {_normal(line.partition("==")[0]): line.partition("==")[2] for line in lines}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_files_are_short() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    limits = {path: LONGEST_TEST_FILE if path.parts[0] == "tests" else LONGEST_FILE for path in lengths}
    assert {path.as_posix(): lines for path, lines in lengths.items() if lines > limits[path]} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{path.relative_to(ROOT).as_posix()}:{name}": lines
        for path in SOURCES
        for name, lines in functions(path.read_text(encoding="utf-8"))
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION} == {}
    longer = {name: lines for name, lines in lengths.items() if lines > USUAL_FUNCTION}
    assert len(longer) <= LONG_FUNCTIONS * len(lengths), longer


def test_function_lengths_are_counted() -> None:
    source = 'def f():\n    """One.\n\n    Two.\n    """\n    def g():\n        return 1\n    return g\n'
    assert dict(functions(source)) == {"f": 4, "g": 2}


def test_every_source_looks_forward() -> None:
    missing = [path for path in SOURCES if path.read_text("utf-8").strip()]
    missing = [path for path in missing if "from __future__ import annotations" not in path.read_text("utf-8")]
    with_code = [path for path in missing if any(True for _ in functions(path.read_text("utf-8")))]
    assert [path.relative_to(ROOT).as_posix() for path in with_code] == []


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    manifest = tomllib.loads((ROOT / "blender_manifest.toml").read_text("utf-8"))
    changes = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)
    assert manifest["version"] == project["version"] == changes[0]
    assert manifest["license"] == [f"SPDX:{project['license']}"]
    assert manifest["blender_version_min"] == pins(ROOT / "wheels" / "bpy-4.2.lock")["bpy"]


def test_the_licence_is_there_in_full() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "GNU GENERAL PUBLIC LICENSE" in text
    assert "Version 3, 29 June 2007" in text
    assert "END OF TERMS AND CONDITIONS" in text


def found_in(text: str) -> list[str]:
    """What of FORBIDDEN a text holds."""
    return [what for what, pattern in FORBIDDEN.items() if re.search(pattern, text)]


def test_the_project_speaks_only_of_itself() -> None:
    texts = [path for path in FILES if path.suffix in TEXT and path.name not in {"LICENSE", Path(__file__).name}]
    found = {}
    for path in texts:
        try:
            what = found_in(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue
        if what:
            found[path.relative_to(ROOT).as_posix()] = what
    assert found == {}


@pytest.mark.parametrize(
    "text",
    ["cd /root/x", "open('/work/a')", "/home/ann/a", "pip install --index-url x", "https://pypi.org/simple"],
)
def test_forbidden_words_are_caught(text: str) -> None:
    assert len(found_in(text)) >= 1
    assert found_in("the work of the roots, at home, in /workspace.txt") == []


@pytest.mark.parametrize("lock", LOCKS, ids=[lock.name for lock in LOCKS])
def test_locks_are_exact(lock: Path) -> None:
    lines = [line for line in lock.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert len(pins(lock)) == len(lines)
    assert lines == sorted(lines, key=str.lower)


def test_locks_of_one_environment_agree() -> None:
    backend, tools = pins(ROOT / "wheels" / "backend-cpu-linux-py311.lock"), pins(ROOT / "wheels" / "dev.lock")
    assert {name: tools[name] for name in tools.keys() & backend.keys() if tools[name] != backend[name]} == {}


def test_the_lock_is_what_the_tests_run_on() -> None:
    """Every pin is installed as pinned: what passed here is what the next clone gets."""
    locked = pins(ROOT / "wheels" / "backend-cpu-linux-py311.lock")
    installed = {_normal(each.metadata["Name"]): each.version for each in importlib.metadata.distributions()}
    wrong = {
        name: (version, installed.get(name))
        for name, version in locked.items()
        if not _same(installed.get(name), version)
    }
    assert wrong.keys() <= {"setuptools"}, wrong


def _same(installed: str | None, locked: str) -> bool:
    """Equal but for a local label: 2.13.0+cpu is 2.13.0."""
    return installed is not None and installed.partition("+")[0] == locked


def test_everything_the_backend_imports_is_locked() -> None:
    locked = pins(ROOT / "wheels" / "backend-cpu-linux-py311.lock")
    providers = importlib.metadata.packages_distributions()
    modules: dict[str, str] = {}
    for path in (ROOT / "backend").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            modules |= {name.partition(".")[0]: path.relative_to(ROOT).as_posix() for name in names}
    foreign = set(modules) - set(sys.stdlib_module_names) - OPTIONAL_MODULES
    unlocked = {
        name: modules[name]
        for name in foreign
        if not {_normal(each) for each in [name, *providers.get(name, [])]} & locked.keys()
    }
    assert unlocked == {}
