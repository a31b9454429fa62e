"""What a person sees, one panel a file. Panels draw and never work."""

from __future__ import annotations

from ..bridge.blender import register_classes, unregister_classes
from . import cameras, jobs, menus, mesh, models, past_jobs, quality, source

CLASSES = (
    *source.CLASSES,
    *models.CLASSES,
    *cameras.CLASSES,
    *quality.CLASSES,
    *mesh.CLASSES,
    *jobs.CLASSES,
    *past_jobs.CLASSES,
)


def register() -> None:
    """Register every panel, in the order they are shown."""
    register_classes(CLASSES)
    menus.register()


def unregister() -> None:
    """Take them back."""
    menus.unregister()
    unregister_classes(CLASSES)
