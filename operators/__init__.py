"""What a person can do, one verb a file."""

from __future__ import annotations

from ..bridge.blender import register_classes, unregister_classes
from . import cancel, environment, generate, results, rig

CLASSES = (*generate.CLASSES, *cancel.CLASSES, *rig.CLASSES, *results.CLASSES, *environment.CLASSES)


def register() -> None:
    """Register every operator."""
    register_classes(CLASSES)


def unregister() -> None:
    """Take them back."""
    unregister_classes(CLASSES)
