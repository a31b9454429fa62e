"""The extension's zip: built and accepted by Blender's own tool, with what it needs and nothing else."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.fake_wheels import write_lock, write_wheel

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
    outside = [name for name in names if name.split("/")[0] in {"tests", "docs", "benchmarks", "scripts", "out"}]
    assert outside == []
    locks = {f"wheels/locks/{each.name}" for each in (ROOT / "wheels" / "locks").glob("*.lock")}
    assert {name for name in names if name.startswith("wheels/")} == locks
    assert len(locks) >= 6
    assert [name for name in names if name.startswith(".") or "__pycache__" in name] == []
    assert {f"presets/dreamlathe/quality/{name}.py" for name in ("Draft", "Standard", "High")} <= names
    assert target.stat().st_size < 50e6  # four models of 11 to 12 MB each


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


def test_the_full_zip_brings_its_wheels(builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny wheels instead of PyTorch's: named in the manifest, split by platform, valid; Blender's own left out."""
    offline = sys.modules["offline"]
    (tmp_path / "index").mkdir()
    wheels = [write_wheel(tmp_path / "index", name, name) for name in ("torch", "numpy", "xatlas")]
    (tmp_path / "locks").mkdir()
    for name in ("linux-x64-py311", "linux-x64-cpu-py311", "windows-x64-py311"):
        lock = write_lock(tmp_path / "locks" / f"{name}.lock", wheels)
        if name == "linux-x64-py311":
            lock.write_text(f"{lock.read_text()}nvidia-cublas==1.0 --hash=sha256:{64 * '0'}\n")
    monkeypatch.setattr(offline, "LOCKS", tmp_path / "locks")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    platforms = ["linux-x64", "windows-x64"]
    found = builder.build_offline(ROOT, tmp_path / "out", platforms, tmp_path / "cache")
    assert [each.name for each in found] == [
        "dreamlathe-offline-0.1.0-linux_x64.zip",
        "dreamlathe-offline-0.1.0-windows_x64.zip",
    ]
    for path in found:
        with zipfile.ZipFile(path) as archive:
            held = {name for name in archive.namelist() if name.endswith(".whl")}
            manifest = tomllib.loads(archive.read("blender_manifest.toml").decode())
        assert held == {"wheels/torch-1.0-py3-none-any.whl", "wheels/xatlas-1.0-py3-none-any.whl"}
        assert {name.removeprefix("./") for name in manifest["wheels"]} == held
        assert manifest["permissions"]["network"]  # the tables after the wheels are whole
    with pytest.raises(offline.DownloadError, match="no lock file without CUDA for macos-arm64"):
        builder.build_offline(ROOT, tmp_path / "out", ["macos-arm64"], tmp_path / "cache")
    (tmp_path / "index" / wheels[0].name).unlink()
    with pytest.raises(offline.DownloadError, match="torch"):
        builder.build_offline(ROOT, tmp_path / "out", platforms, tmp_path / "empty")
