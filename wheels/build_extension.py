"""Build the extension's zip with Blender's own tool and validate it. Runs in an environment with the bpy wheel.

``python wheels/build_extension.py [--out dist] [--repository DIR] [--offline linux-x64 …]``. The zip holds what git
knows (and what is new and not ignored), less what blender_manifest.toml leaves out, so that no environment, result or
other ignored file of the working tree gets in. ``--offline`` also builds, for each platform named, the full zip that
brings PyTorch (without CUDA) and all that goes with it as wheels: nothing is left to be set up.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "wheels"))

from offline import TAGS, DownloadError, download, offline_locks, with_wheels  # noqa: E402

MANIFEST = "blender_manifest.toml"


class BuildError(Exception):
    """The zip could not be built, or Blender's validator refused it."""


def blender_tool() -> tuple[Path, Path]:
    """Blender's extension tool and its list of tags, found in the bpy wheel without starting Blender."""
    spec = importlib.util.find_spec("bpy")
    if spec is None or not spec.submodule_search_locations:
        raise BuildError("There is no bpy module in this Python. Run: make extension")
    for scripts in sorted(Path(spec.submodule_search_locations[0]).glob("[0-9]*/scripts")):
        tool = scripts / "addons_core" / "bl_pkg" / "cli" / "blender_ext.py"
        tags = scripts / "modules" / "_bpy_internal" / "extensions" / "tags.py"
        if tool.is_file() and tags.is_file():
            return tool, tags
    raise BuildError("The bpy module has no extension tool. It comes with Blender 4.2 and newer.")


def build(source: Path, folder: Path) -> Path:
    """Build the zip of the extension in ``source`` into ``folder``, validate it and return its path."""
    tool, tags = blender_tool()
    manifest = tomllib.loads((source / MANIFEST).read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{manifest['id']}-{manifest['version']}.zip"
    valid = f"--valid-tags={tags}"
    with tempfile.TemporaryDirectory(prefix="dreamlathe-build-") as name:
        clean = Path(name) / manifest["id"]
        copy_known_files(source, clean)
        _run(tool, "build", f"--source-dir={clean}", f"--output-filepath={target}", valid)
    _run(tool, "validate", str(target), valid)
    return target


def build_offline(source: Path, folder: Path, platforms: Sequence[str], cache: Path) -> list[Path]:
    """Build and validate the full zips of ``platforms`` into ``folder``; ``cache`` keeps the wheels. Returns the zips.

    Raises BuildError, and DownloadError where a wheel is missing.
    """
    tool, tags = blender_tool()
    manifest = tomllib.loads((source / MANIFEST).read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    valid = f"--valid-tags={tags}"
    wheels = {wheel.name: wheel for lock in offline_locks(platforms) for wheel in download(lock, cache / lock.stem)}
    with tempfile.TemporaryDirectory(prefix="dreamlathe-build-", dir=folder) as name:
        clean, built = Path(name) / manifest["id"], Path(name) / "built"
        built.mkdir()
        copy_known_files(source, clean)
        (clean / "wheels").mkdir(exist_ok=True)
        for wheel in wheels.values():
            _link(wheel, clean / "wheels" / wheel.name)
        text = with_wheels((clean / MANIFEST).read_text(encoding="utf-8"), sorted(wheels), platforms)
        (clean / MANIFEST).write_text(text, encoding="utf-8")
        _run(tool, "build", f"--source-dir={clean}", f"--output-dir={built}", "--split-platforms", valid)
        found: list[Path] = []
        for archive in sorted(built.glob("*.zip")):
            _run(tool, "validate", str(archive), valid)
            found.append(archive.replace(folder / archive.name.replace(manifest["id"], f"{manifest['id']}-offline", 1)))
    return found


def _link(source: Path, target: Path) -> None:
    """The same file at another place, without a copy where the disk can do so."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def add_to_repository(archive: Path, folder: Path) -> Path:
    """Put the zip into a folder that any web server can offer as an extension repository; returns its index.

    Blender takes the address of the index as a remote repository. ``index.html`` shows the same to people.
    """
    tool, _ = blender_tool()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(archive, folder / archive.name)
    _run(tool, "server-generate", f"--repo-dir={folder}", "--html")
    return folder / "index.json"


def copy_known_files(source: Path, target: Path) -> None:
    """Copy what git tracks or would track; all of it where the source is no repository (an unpacked archive)."""
    command = ["git", "-C", str(source), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", "__pycache__", "out", "dist"))
        return
    for name in filter(None, listed.split("\0")):
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)


def _run(tool: Path, *arguments: str) -> None:
    result = subprocess.run([sys.executable, str(tool), *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(f"{arguments[0]} failed:\n{result.stdout}{result.stderr}".rstrip())


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build and validate the extension's zip.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder for the zip (default: dist)")
    parser.add_argument("--repository", type=Path, help="also put it into this folder as a static repository")
    parser.add_argument("--offline", nargs="+", metavar="PLATFORM", choices=TAGS, help="also the full zips of these")
    options = parser.parse_args()
    out = options.out.resolve()
    try:
        target = build(ROOT, out)
        for full in build_offline(ROOT, out, options.offline, out / "wheels") if options.offline else ():
            print(f"{full}: {full.stat().st_size / 1e6:.1f} MB, valid.")
        if options.repository is not None:
            print(f"{add_to_repository(target, options.repository.resolve())}: the repository's index.")
    except (BuildError, DownloadError) as error:
        print(f"The extension was not built: {error}", file=sys.stderr)
        return 1
    with zipfile.ZipFile(target) as archive:
        files = archive.infolist()
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, {len(files)} files, valid.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
