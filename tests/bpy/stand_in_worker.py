"""A worker that speaks the protocol and does no work; the request's prompt says how it behaves. stdlib only."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from glb_fixture import png, write_result


def say(event: str, **values: Any) -> None:
    """One event."""
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()


def command(timeout: float | None) -> dict[str, Any] | None:
    """The next command; None when none comes in time. The end of the input is a quit."""
    if not select.select([0], [], [], timeout)[0]:
        return None
    line = sys.stdin.buffer.raw.readline()  # type: ignore[attr-defined]
    return json.loads(line) if line else {"command": "quit"}


def work(folder: Path, request: dict[str, Any]) -> None:
    """Behave as the prompt says."""
    prompt = request["prompt"]
    say("phase", name="environment", message="Loading libraries")
    if "dies" in prompt:
        sys.stderr.write("Traceback\n  something\nMemoryError: no memory for a duck\n")
        sys.exit(3)
    if "is killed" in prompt:
        os.kill(os.getpid(), signal.SIGKILL)
    if "fails" in prompt:
        say("failed", code="vocabulary", message="The word zebra is not known.", hint="Known are: duck, car.")
        return
    if "is mute" in prompt:
        time.sleep(60)
    say("message", level="warning", text="This is a stand-in.")
    print("a library prints this")
    say("phase", name="optimize", message="")
    total = 100_000 if "takes long" in prompt or "ignores" in prompt else 150 if "takes a while" in prompt else 20
    for step in range(1, total + 1):
        if step == 5:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "preview.png").write_bytes(png(96))
            say("preview", path=str(folder / "preview.png"), step=step)
        say("progress", step=step, total=total, seconds_left=float(total - step), loss=0.5)
        if total > 20:
            asked = command(0.01)
            if asked is not None and "ignores" not in prompt:
                say("failed", code="cancelled", message="Stopped.", hint="")
                return
    write_result(folder, request)
    if "has no mesh" in prompt:
        (folder / "mesh.glb").unlink()
    say("finished", folder=str(folder))


def main() -> None:
    """Serve until told to quit."""
    while True:
        asked = command(None)
        if asked is None or asked["command"] == "quit":
            return
        if asked["command"] == "run":
            if "start_from" in asked:  # a folder with a record of its own is there already
                (Path(asked["folder"]) / "command.json").write_text(json.dumps(asked))
            work(Path(asked["folder"]), asked["request"])


main()
