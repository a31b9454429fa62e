"""The wheels that the full extension brings along: what a lock file names, less what Blender's own Python has."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

LOCKS = Path(__file__).resolve().parent / "locks"
OF_BLENDER = ("certifi", "charset-normalizer", "idna", "numpy", "requests", "urllib3")
"""Packages that Blender comes with; another version beside them would meet every other extension."""
TAGS = {
    "linux-x64": [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)] + ["manylinux2014_x86_64"],
    "windows-x64": ["win_amd64"],
    "macos-arm64": [f"macosx_{major}_0_{kind}" for major in (14, 13, 12, 11) for kind in ("arm64", "universal2")],
}
"""The wheels' tags of each of Blender's platforms."""


class DownloadError(Exception):
    """A wheel could not be fetched; the text says which."""


def platform_of(lock: Path) -> str:
    """The platform that a lock file is for, in Blender's words."""
    return "-".join(lock.stem.split("-")[:2])


def offline_locks(platforms: Iterable[str]) -> list[Path]:
    """The lock files without CUDA of these platforms, one for each Python; DownloadError where there is none."""
    found: list[Path] = []
    for platform in platforms:
        own = sorted(LOCKS.glob(f"{platform}-*.lock"))
        small = [lock for lock in own if "nvidia-" not in lock.read_text(encoding="utf-8")]
        if not small:
            raise DownloadError(f"There is no lock file without CUDA for {platform}. Make one: wheels/lock_backend.py")
        found += small
    return found


def without_blenders_own(text: str) -> str:
    """A lock file's text without the packages that Blender comes with."""
    entries = re.split(r"(?m)^(?=[\w.-]+==)", text)
    own = re.compile(rf"({'|'.join(OF_BLENDER)})==", re.IGNORECASE)
    return "".join(entry for entry in entries if not own.match(entry.replace("_", "-")))


def download(lock: Path, folder: Path) -> list[Path]:
    """Fetch the wheels of a lock file into ``folder`` (those that lie there are not fetched again); returns them.

    Where they come from is pip's own configuration. Raises DownloadError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trimmed = folder / f"{lock.stem}.txt"
    trimmed.write_text(without_blenders_own(lock.read_text(encoding="utf-8")), encoding="utf-8")
    version = lock.stem.rpartition("-py")[2]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--python-version", f"{version[0]}.{version[1:]}", "--implementation", "cp"]
    command += [option for tag in TAGS[platform_of(lock)] for option in ("--platform", tag)]
    result = subprocess.run(
        [*command, "--dest", str(folder), "--requirement", str(trimmed)], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise DownloadError(f"{lock.stem}: {' '.join(result.stderr.split())[-600:]}")
    return sorted(folder.glob("*.whl"))


def with_wheels(manifest: str, names: Iterable[str], platforms: Iterable[str]) -> str:
    """A manifest's text that names wheels and platforms, before its first table."""
    listed = "".join(f'  "./wheels/{name}",\n' for name in names)
    systems = ", ".join(f'"{each}"' for each in platforms)
    head, bracket, rest = manifest.partition("\n[")
    return f"{head.rstrip()}\nplatforms = [{systems}]\nwheels = [\n{listed}]\n{bracket}{rest}"
