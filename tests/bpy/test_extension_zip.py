"""The extension's zip: built and accepted by Blender's own tool, with what it needs and nothing else."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_extension", ROOT / "wheels" / "build_extension.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_zip_is_valid_and_holds_what_runs(builder: ModuleType, tmp_path: Path) -> None:
    target = builder.build(ROOT, tmp_path)
    with zipfile.ZipFile(target) as archive:
        names = set(archive.namelist())
    assert {"blender_manifest.toml", "__init__.py", "backend/request.py", "backend/worker.py", "LICENSE"} <= names
    # Everything in the backend's folder is there, the built-in model's weights included.
    known = {path.relative_to(ROOT).as_posix() for path in (ROOT / "backend").rglob("*.py")}
    assert known <= names
    outside = [
        name for name in names if name.split("/")[0] in {"tests", "docs", "benchmarks", "wheels", "scripts", "out"}
    ]
    assert outside == []
    assert [name for name in names if name.startswith(".") or "__pycache__" in name] == []
    assert {f"presets/dreamlathe/quality/{name}.py" for name in ("Draft", "Standard", "High")} <= names
    assert target.stat().st_size < 40e6


def test_a_static_repository_lists_it(builder: ModuleType, tmp_path: Path) -> None:
    index = builder.add_to_repository(builder.build(ROOT, tmp_path / "dist"), tmp_path / "site")
    (entry,) = json.loads(index.read_text(encoding="utf-8"))["data"]
    assert (entry["id"], entry["type"], entry["blender_version_min"]) == ("dreamlathe", "add-on", "4.2.0")
    archive = index.parent / entry["archive_url"]
    assert archive.stat().st_size == entry["archive_size"]
    assert entry["archive_hash"] == f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    assert "dreamlathe" in (index.parent / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("good", "bad", "named"),
    [
        ('version = "0', 'version = "zero', "version"),
        ('own cameras"', 'own cameras."', "tagline"),
        ('"Camera"', '"AI"', "tag"),
        ('"dreamlathe"', '"dream-lathe"', "id"),
    ],
)
def test_a_manifest_that_blender_refuses_is_named(
    builder: ModuleType, tmp_path: Path, good: str, bad: str, named: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "__init__.py").touch()
    manifest = (ROOT / "blender_manifest.toml").read_text(encoding="utf-8")
    (source / "blender_manifest.toml").write_text(manifest, encoding="utf-8")
    assert builder.build(source, tmp_path / "out").is_file()
    assert good in manifest
    (source / "blender_manifest.toml").write_text(manifest.replace(good, bad), encoding="utf-8")
    with pytest.raises(builder.BuildError, match=named):
        builder.build(source, tmp_path / "out")


def test_a_python_without_blender_is_named(builder: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(builder.BuildError, match="no bpy module"):
        builder.blender_tool()
