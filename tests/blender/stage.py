"""What the stories of this folder share: Blender's window, our tab, buttons, pictures, and the clock that tells one.

A story is a generator; each of its yields lets Blender's own loop run for so many seconds. Where a picture is wanted, a
file named HOLD-… appears, and Blender waits until somebody has taken the picture and deleted it.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

bpy: Any = importlib.import_module("bpy")
ARGUMENTS = sys.argv[sys.argv.index("--") + 1 :]
NAME = next(each.module for each in bpy.context.preferences.addons if each.module.endswith(".dreamlathe"))
ADDON = bpy.context.preferences.addons[NAME].preferences


def part(name: str) -> Any:
    """A module of the extension."""
    return importlib.import_module(f"{NAME}.{name}")


queue: Any = part("bridge.queue")
frames: Any = part("bridge.frames")
supervisor: Any = part("bridge.supervisor")


def window() -> Any:
    """Blender's window."""
    return bpy.context.window_manager.windows[0]


def view() -> Any:
    """The 3D view, with the sidebar."""
    area = next(area for area in window().screen.areas if area.type == "VIEW_3D")
    area.spaces.active.show_region_ui = True
    return area


def tab() -> None:
    """Turn the sidebar to our tab; it must have been drawn before."""
    for region in view().regions:
        if region.type == "UI":
            region.active_panel_category = "Dreamlathe"


def redraw() -> None:
    """Draw everything anew."""
    for area in window().screen.areas:
        area.tag_redraw()


def press(operator: Any, how: str = "INVOKE_DEFAULT", **values: Any) -> Any:
    """As a button does, with an undo step."""
    area = view()
    region = next(region for region in area.regions if region.type == "WINDOW")
    with bpy.context.temp_override(window=window(), area=area, region=region):
        return operator(how, True, **values)


def run(operator: Any, **values: Any) -> Any:
    """As a script does, in the 3D view."""
    return press(operator, "EXEC_DEFAULT", **values)


def step_back(operator: Any) -> None:
    """Undo or redo."""
    with bpy.context.temp_override(window=window()):
        operator()


def picture(hold: str, name: str) -> Iterator[float]:
    """Wait for a picture; not at all if nobody takes any."""
    if not hold:
        return
    redraw()
    yield 0.8
    path = Path(f"{hold}-{name}")
    path.touch()
    while path.exists():
        yield 0.2


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Iterator[float]:
    """Let Blender go on until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        yield 0.1


def leave(code: int) -> None:
    """End Blender at once; quitting through its menu would always give 0."""
    supervisor.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def tell(story: Iterator[float], end: str) -> None:
    """Let a story begin; at its end Blender says so and is gone, with the exit code 0 if all was well."""

    def go_on() -> float | None:
        try:
            return next(story)
        except StopIteration:
            print(end)
            leave(0)
        except BaseException:  # noqa: BLE001 - whatever it is, it must not leave a Blender behind
            traceback.print_exc()
            leave(1)
        return None

    bpy.app.timers.register(go_on, first_interval=1.0, persistent=True)
