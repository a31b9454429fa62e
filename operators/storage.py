"""The cache of workers: how large it is, and an end to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import bpy
from bpy.types import Context, Event, Operator

from ..bridge import queue, supervisor
from ..bridge.blender import OperatorReturn
from ..bridge.storage import Measure, in_words
from ..preferences import cache_folder, note_cache


class DREAMLATHE_OT_cache_measure(Operator):
    """See how much room the cache of compiled files takes."""

    bl_idname = "dreamlathe.cache_measure"
    bl_label = "Measure the Cache"
    bl_options = {"REGISTER"}

    def invoke(self, context: Context, event: Event) -> OperatorReturn:
        """Measure beside the interface."""
        folder = cache_folder()
        if bpy.app.background or folder is None:
            return self.execute(context)
        measure = Measure(folder)
        supervisor.start(measure, lambda: note_cache(in_words(measure.size)))
        note_cache("Measuring …")
        return {"FINISHED"}

    def execute(self, context: Context) -> OperatorReturn:
        text = in_words(_measured(cache_folder()))
        note_cache(text)
        self.report({"INFO"}, text)
        return {"FINISHED"}


class DREAMLATHE_OT_cache_clear(Operator):
    """Delete the cache of compiled files; the next job makes it anew, which takes a minute."""

    bl_idname = "dreamlathe.cache_clear"
    bl_label = "Clear the Cache"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if queue.busy():
            cls.poll_message_set("A job is running")
            return False
        return True

    def execute(self, context: Context) -> OperatorReturn:
        folder = cache_folder()
        size = _measured(folder)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        note_cache("The cache is empty")
        self.report({"INFO"}, f"{size / 1e6:.0f} MB deleted")
        return {"FINISHED"}


def _measured(folder: Path | None) -> int:
    if folder is None:
        return 0
    measure = Measure(folder)
    while measure.step():
        pass
    return measure.size


CLASSES = (DREAMLATHE_OT_cache_measure, DREAMLATHE_OT_cache_clear)
