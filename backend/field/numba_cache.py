"""Where compiled Numba kernels are kept. Standard library only; call before numba is imported."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

_VARIABLE = "NUMBA_CACHE_DIR"


def prepare_numba_cache() -> Path:
    """Point Numba's cache at a writable folder of the user's and return it; a folder already chosen is kept.

    The extension's own folder may be read-only, so compiled kernels go to the user's cache folder, or to a fresh
    temporary one where that cannot be written.
    """
    chosen = os.environ.get(_VARIABLE)
    if chosen:
        return Path(chosen)
    folder = _user_cache() / "dreamlathe" / "numba"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="dreamlathe-numba-"))
    os.environ[_VARIABLE] = str(folder)
    numba = sys.modules.get("numba")
    if numba is not None:
        numba.config.CACHE_DIR = str(folder)
    return folder


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
