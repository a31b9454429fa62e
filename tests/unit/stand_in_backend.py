"""A backend process with the stand-in guidance: ``python stand_in_backend.py KIND worker …``.

slow: the model takes 30 s to load, and can be interrupted; deaf: it cannot; stumbling: it swallows the interruption and
fails over what is missing then; noisy: it prints; endless: steps take time.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import backend.guidance as guidance_room
from backend import cli
from tests.unit.silhouette import SilhouetteGuidance

kind = sys.argv[1]


class StandIn(SilhouetteGuidance):
    def gradient(self, images: Any, cameras: Any, progress: float, generator: Any) -> Any:
        if kind == "endless":
            time.sleep(0.05)
        return super().gradient(images, cameras, progress, generator)


def load(*_: Any) -> StandIn:
    if kind == "slow":
        time.sleep(30)
    if kind == "deaf":
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(1)
    if kind == "stumbling":
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(30)
        raise NameError("name 'half_imported' is not defined")
    if kind == "noisy":
        print("a library prints")
        os.write(1, b'{"event": "finished", "folder": "a lie"}\n')
        subprocess.run(["echo", "a child prints"], check=True)
    return StandIn()


guidance_room.load_guidance = load
cli.leave(cli.main(sys.argv[2:]))
