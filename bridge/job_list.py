"""The list of past jobs as Blender draws lists: items on the window manager, which no .blend keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import bpy
from bpy.app.handlers import persistent
from bpy.props import CollectionProperty, IntProperty, StringProperty
from bpy.types import PropertyGroup, WindowManager

from ..preferences import preferences
from . import frames, history, queue, suggestions, supervisor, thumbnails
from .blender import redraw_sidebars, register_classes, unregister_classes, window_manager, with_properties


class DREAMLATHE_PG_past(PropertyGroup):
    """One job of the past."""


with_properties(
    DREAMLATHE_PG_past,
    {
        "name": StringProperty(name="Prompt", description="What the job was asked for"),
        "folder": StringProperty(name="Folder", description="The job's folder"),
    },
)


def items() -> Any:
    """The list's items."""
    return cast("Any", window_manager()).dreamlathe_jobs


def past_of(item: Any) -> history.Past | None:
    """What is known of an item's job."""
    return history.look(Path(item.folder))


def active() -> history.Past | None:
    """The job that is chosen in the list."""
    manager = cast("Any", window_manager())
    chosen = manager.dreamlathe_job
    return past_of(manager.dreamlathe_jobs[chosen]) if 0 <= chosen < len(manager.dreamlathe_jobs) else None


def choose(folder: Path) -> None:
    """Choose the job of a folder, if the list has it."""
    for index, item in enumerate(items()):
        if Path(item.folder) == folder:
            cast("Any", window_manager()).dreamlathe_job = index


def interrupted() -> list[history.Past]:
    """Jobs that are not over and that nobody works at: Blender was closed, or it crashed."""
    found = [past for past in map(past_of, items()) if past is not None and past.state == "unfinished"]
    return [past for past in found if queue.find(past.folder) is None]


@frames.timed("list of jobs")
def refresh() -> None:
    """Read the folder of results again; what has not changed is not read."""
    manager = cast("Any", window_manager())
    chosen = active() if manager.dreamlathe_job > 0 else None  # who looks at the newest goes on to do so
    pasts = history.scan(preferences().results_folder())
    collection = items()
    collection.clear()
    for past in pasts:
        item = collection.add()
        item.name, item.folder = past.title, str(past.folder)
    manager.dreamlathe_job = 0
    if chosen is not None:
        choose(chosen.folder)
    suggestions.set_prompts(history.prompts(pasts))
    suggestions.set_models([*preferences().models(), *dict.fromkeys(past.request.model for past in pasts)])
    suggestions.set_view_models(past.request.view_model for past in pasts if past.request.references)
    thumbnails.trim()
    redraw_sidebars()


@persistent
def _on_load(*_: Any) -> None:
    queue.follow_file()
    refresh()


@persistent
def _on_save(*_: Any) -> None:
    queue.follow_file()


CLASSES = (DREAMLATHE_PG_past,)


def register() -> None:
    """Put the list on window managers; it is filled when a file is loaded, and once now, when Blender has a moment."""
    register_classes(CLASSES)
    manager = cast("Any", WindowManager)
    manager.dreamlathe_jobs = CollectionProperty(type=DREAMLATHE_PG_past, options={"SKIP_SAVE"})
    manager.dreamlathe_job = IntProperty(name="Job", description="The chosen job", options={"SKIP_SAVE"})
    bpy.app.handlers.load_post.append(_on_load)
    bpy.app.handlers.save_post.append(_on_save)
    supervisor.listeners.append(refresh)
    if not bpy.app.background:
        bpy.app.timers.register(refresh, first_interval=0.1)


def unregister() -> None:
    """Take it back."""
    if bpy.app.timers.is_registered(refresh):
        bpy.app.timers.unregister(refresh)
    supervisor.listeners.remove(refresh)
    bpy.app.handlers.load_post.remove(_on_load)
    bpy.app.handlers.save_post.remove(_on_save)
    manager = cast("Any", WindowManager)
    del manager.dreamlathe_jobs, manager.dreamlathe_job
    unregister_classes(CLASSES)
