"""Enabling and disabling leaves nothing behind, and starts nothing."""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any

import addon_utils
import pytest

from tests.bpy.blender import bpy

PACKAGE = "bl_ext.user_default.dreamlathe"


def own_classes() -> set[str]:
    return {name for name in dir(bpy.types) if name.startswith("DREAMLATHE_")}


def own_menu_entries() -> int:
    return sum(each.__module__.startswith(PACKAGE) for each in bpy.types.VIEW3D_MT_add.draw._draw_funcs)


def test_enable_and_disable_twice(extension: Any) -> None:
    before = own_classes()
    assert {"DREAMLATHE_OT_generate", "DREAMLATHE_PT_source"} <= before
    for _ in range(2):
        addon_utils.disable(PACKAGE)
        assert own_classes() == set()
        assert not hasattr(bpy.types.Scene, "dreamlathe")
        assert own_menu_entries() == 0
        with pytest.raises(KeyError):
            bpy.ops.dreamlathe.generate.get_rna_type()
        assert addon_utils.enable(PACKAGE) is not None
        assert own_classes() == before
        assert own_menu_entries() == 1
        assert bpy.context.scene.dreamlathe.prompt == ""


def test_register_and_unregister_directly(extension: Any) -> None:
    module = sys.modules[PACKAGE]
    before = own_classes()
    for _ in range(2):
        module.unregister()
        module.register()
    assert own_classes() == before


def test_nothing_is_started(extension: Any) -> None:
    supervisor, client = extension("bridge.supervisor"), extension("bridge.worker_client")
    assert not bpy.app.timers.is_registered(supervisor._tick)
    assert not list(client._alive)
    assert threading.active_count() == 1 or all(t.daemon for t in threading.enumerate() if t.name != "MainThread")


def test_disabling_ends_a_running_job(extension: Any, backend_python: Any, settings: Any) -> None:
    settings.prompt = "a duck that takes long"
    generation, supervisor = extension("bridge.generation"), extension("bridge.supervisor")
    job = extension("bridge.queue").add(generation.make_plan(bpy.context)).job
    process = job._worker._process
    assert bpy.app.timers.is_registered(supervisor._tick)
    addon_utils.disable(PACKAGE)
    assert process.poll() is not None
    assert not bpy.app.timers.is_registered(supervisor._tick)
    assert addon_utils.enable(PACKAGE) is not None


def test_every_class_says_what_it_is() -> None:
    for name in own_classes():
        cls = getattr(bpy.types, name)
        if "_OT_" in name:
            operator = getattr(bpy.ops.dreamlathe, name.removeprefix("DREAMLATHE_OT_"))
            assert len(operator.get_rna_type().description) > 20, name
        if "_PT_" in name and not name.endswith("_presets"):
            assert cls.bl_category == "Dreamlathe", name


def test_garbage_is_collected_again_after_the_import(extension: Any) -> None:
    assert gc.isenabled()
