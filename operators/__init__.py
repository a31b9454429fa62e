"""What a person can do, one theme a file."""

from __future__ import annotations

from ..bridge.blender import register_classes, unregister_classes
from . import environment, generate, jobs, models, past_jobs, pictures, presets, remesh, results, rig, storage

CLASSES = (
    *generate.CLASSES,
    *jobs.CLASSES,
    *past_jobs.CLASSES,
    *rig.CLASSES,
    *models.CLASSES,
    *pictures.CLASSES,
    *presets.CLASSES,
    *results.CLASSES,
    *remesh.CLASSES,
    *environment.CLASSES,
    *storage.CLASSES,
)


def register() -> None:
    """Register every operator."""
    register_classes(CLASSES)
    presets.register()


def unregister() -> None:
    """Take them back."""
    presets.unregister()
    unregister_classes(CLASSES)
