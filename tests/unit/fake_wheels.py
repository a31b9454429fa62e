"""Tiny wheels with the names of the backend's libraries, and a lock file of them; pip installs them in a moment."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

LIBRARIES = {
    "torch": "torch",
    "numba": "numba",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "scikit-image": "skimage",
    "xatlas": "xatlas",
    "fast-simplification": "fast_simplification",
}
"""Their modules, by distribution."""


def write_wheel(folder: Path, name: str, module: str, body: str = "__version__ = '1.0'\n") -> Path:
    """A pure wheel with one module; returns its path."""
    stem = f"{name.replace('-', '_')}-1.0"
    files = {
        f"{module}.py": body,
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{path},sha256={_digest(text)},{len(text)}" for path, text in files.items()]
    files[f"{stem}.dist-info/RECORD"] = "\n".join([*rows, f"{stem}.dist-info/RECORD,,", ""])
    target = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return target


def write_lock(path: Path, wheels: list[Path]) -> Path:
    """A lock file of wheels, with their hashes."""
    lines = [
        f"{wheel.name.split('-')[0]}==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
        for wheel in wheels
    ]
    path.write_text("\n".join([*lines, ""]))
    return path


def write_all(folder: Path) -> Path:
    """All libraries as wheels in ``folder``, and their lock file, which is returned."""
    folder.mkdir()
    wheels = [write_wheel(folder, name, module) for name, module in LIBRARIES.items()]
    return write_lock(folder / "linux-x64-py311.lock", wheels)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
