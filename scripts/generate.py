"""The whole way without a window and without installing anything, from a checkout.

    blender -b [file.blend] --python scripts/generate.py -- --prompt "a red duck" --out out/duck
    python scripts/generate.py -- --prompt "a red duck" --out out/duck      (a Python that has the bpy wheel)

The arguments after ``--`` are those of ``blender --command dreamlathe generate``; the exit code is its own too: 0 done,
1 failed, 2 asked wrongly, 130 cancelled.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy

NAME = "dreamlathe"
ROOT = Path(__file__).resolve().parent.parent


def installed() -> ModuleType | None:
    """The extension as it is installed and enabled in this Blender, if it is."""
    context: Any = bpy.context
    for addon in context.preferences.addons:
        if addon.module.startswith("bl_ext.") and addon.module.endswith(f".{NAME}"):
            return sys.modules.get(addon.module)
    return None


def checkout() -> ModuleType:
    """The extension of this checkout, as a package that is not registered yet."""
    spec = importlib.util.spec_from_file_location(NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Run the command with what follows ``--``; returns the exit code."""
    arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
    enabled = installed()  # two of them cannot live side by side
    extension = enabled or checkout()
    command_line = importlib.import_module(".bridge.command_line", extension.__name__)
    if enabled is not None:
        return int(command_line.main(["generate", *arguments]))
    extension.register()
    try:
        return int(command_line.main(["generate", *arguments]))
    finally:
        extension.unregister()


if __name__ == "__main__":
    sys.exit(main())
