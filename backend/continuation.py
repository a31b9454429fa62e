"""A job that goes on from the end of another one, for more steps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from .errors import OutputError, RequestError
from .request import Request


@dataclass(frozen=True)
class Origin:
    """The job another one goes on from."""

    folder: Path
    digest: str
    """Of its request."""
    steps: int
    """Of its distillation; what it painted over came after them."""


def check_origin(request: Request, folder: Path) -> Origin:
    """The job in ``folder``, if ``request`` is the same with more steps and perhaps another mesh; RequestError else."""
    try:
        other = Request.from_json((folder / "request.json").read_text(encoding="utf-8"))
    except (RequestError, OSError, ValueError):
        raise RequestError(f"{folder} holds no job to go on from.", "Choose a job's folder.") from None
    longer = dataclasses.replace(other.optimize, iterations=request.optimize.iterations)
    same = other.replace(optimize=longer, mesh=request.mesh, preset=request.preset)
    if same.digest() != request.digest():  # pictures count by what they show, wherever their files lie
        raise RequestError(
            f"The job in {folder} differs in more than its steps and its mesh.", "Start without it, or change back."
        )
    if other.optimize.iterations >= request.optimize.iterations:
        raise RequestError(f"The job in {folder} has as many steps already.", "Ask for more steps.")
    return Origin(folder, other.digest(), other.optimize.iterations)


def take_over(request: Request, folder: Path, origin: Origin) -> None:
    """Begin with the last checkpoint of the other job; a folder that has one of its own keeps it.

    The steps that are more are distillation: they follow on the other job's, whose field has been refined since if it
    came to that, and the refinement is made anew after them. Raises OutputError if there is no checkpoint any more.
    """
    from .checkpoint import CheckpointStore  # noqa: PLC0415 - heavy, and a bad request must have failed before
    from .optimize import rewound  # noqa: PLC0415

    own, other = CheckpointStore(folder, request.digest()), CheckpointStore(origin.folder, origin.digest)
    if not own.take_over(other, lambda checkpoint: rewound(checkpoint, origin.steps)):
        raise OutputError(f"{origin.folder} has no checkpoint any more.", "Run the job from its beginning.")
