"""What workers say, on Blender's console, as far as the preferences want it."""

from __future__ import annotations

import logging

from ..backend.errors import Cancelled
from ..backend.events import Event, Failed, Finished, Message, Phase
from .callbacks import LOGGER

_logger = logging.getLogger(LOGGER)
_handler = logging.StreamHandler()
_handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))


def tell(job: str, event: Event) -> None:
    """Write what the worker of a job said, at its level: what begins and ends is info, numbers are for debugging."""
    match event:
        case Failed(code=Cancelled.code):
            _logger.info("%s: cancelled", job)
        case Failed():
            _logger.error("%s: %s", job, f"{event.message} {event.hint}".rstrip())
        case Message(level="warning"):
            _logger.warning("%s: %s", job, event.text)
        case Message():
            _logger.info("%s: %s", job, event.text)
        case Phase():
            _logger.info("%s: %s: %s", job, event.name, event.message)
        case Finished():
            _logger.info("%s: finished", job)
        case _:
            _logger.debug("%s: %s", job, event)


def register() -> None:
    """Write to the console."""
    _logger.addHandler(_handler)


def unregister() -> None:
    """Write nothing any more."""
    _logger.removeHandler(_handler)
