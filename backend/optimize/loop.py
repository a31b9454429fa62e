"""The loop of steps (see :mod:`.step`), with its checkpoints, its previews and the one restart.

A run is a function of its request: one killed at any step and resumed goes on to the same result, bit for bit on a CPU.
Where a field dies (see :mod:`..health`), the run starts again once, at half the learning rate and with generators
seeded anew: after NaN from the last regular checkpoint, because the field was still good; after a vanished or exploded
field from the beginning, because checkpoints on the way there lead there again, and after a vanished one without the
losses that thin the field. Only regular checkpoints (at fixed steps) count for this, so that where a person stopped the
run does not change the result. If the restarted run dies too, DivergedError says so.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import CheckpointStore
from ..errors import Cancelled, DivergedError, RequestError
from ..events import Event, Message, Phase, Preview, Progress
from ..field import Field
from ..files import write_atomically
from ..guidance import Guidance, spared
from ..health import Unhealthy, check_parameters, look, shell_is_full
from ..reference_files import ReferenceView
from ..rendering import OccupancyGrid
from ..request import Request
from .preview import preview_cameras, preview_png, render_preview
from .reference_loss import ReferenceViews
from .sketches import sketched
from .state import RunState
from .step import Stepper

MAX_RESTARTS = 1
_REPORT_SECONDS = 0.2
_PREVIEW_SECONDS = 3.0
_PREVIEW_LIMIT = 5.0
"""Previews come after so many seconds, and before a step that would make it more than the limit; they draw no random
numbers, so this changes nothing else."""


def optimize(
    request: Request,
    folder: Path,
    guidance: Guidance | None,
    device: torch.device,
    report: Callable[[Event], None],
    should_stop: Callable[[], bool],
    references: Sequence[ReferenceView] = (),
) -> tuple[Field, OccupancyGrid, dict[str, Any]]:
    """Optimize a field for a request, going on from the checkpoint in ``folder`` if there is one.

    ``references`` are the request's pictures; with them the guidance may be None. Returns the field, its occupancy and
    numbers for metrics.json. ``should_stop`` is asked before each step. Raises Cancelled when it says so (after a
    checkpoint), DivergedError, and OutputError if the folder cannot be written or holds another request's checkpoint.
    """
    pictures = ReferenceViews(references, request.reference, device) if references else None
    if guidance is None and pictures is None:
        raise RequestError("There is nothing to go by: no model and no picture.", "Choose a model or give a picture.")
    started = time.perf_counter()
    sketches = sketched(request, folder, guidance, device, report, should_stop, references)
    sketching = time.perf_counter() - started
    stepper = Stepper(request, guidance, pictures, sketches, RunState.fresh(request, device))
    loop = _Loop(request, folder, stepper, device, report)
    loop.state.tally.sketching += sketching
    while True:
        try:
            loop.run(should_stop)
            metrics = loop.state.metrics()
            if pictures is not None:
                metrics["references"] = pictures.measure(stepper.renderer)
            return loop.state.field, loop.state.occupancy, metrics
        except Unhealthy as error:
            loop.recover(error)


class _Loop:
    def __init__(
        self, request: Request, folder: Path, stepper: Stepper, device: torch.device, report: Callable[[Event], None]
    ) -> None:
        self.request, self.settings, self.folder = request, request.optimize, folder
        self.stepper, self.steps = stepper, stepper.steps
        self.device, self.report = device, report
        self.store = CheckpointStore(folder, request.digest())
        self.saved_at, self.reported = -1, 0.0
        self.recent: deque[float] = deque(maxlen=50)
        self.previewed = time.perf_counter()
        self._resume()

    @property
    def state(self) -> RunState:
        return self.stepper.state

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Step to the end; raises Unhealthy."""
        tally, settings = self.state.tally, self.settings
        self.report(Phase("optimize", f"Optimizing for {self.steps} steps."))
        if not self.stepper.pictures:  # those are shown first; and the first step may compile kernels for a while
            self._preview()
        while tally.step < self.steps:
            if should_stop():
                self._save(regular=False)
                raise Cancelled(
                    f"Stopped after step {tally.step}.", "The same request in the same folder goes on from it."
                )
            started = time.perf_counter()
            if not self._made(tally.step):
                continue
            tally.step += 1
            self._time(time.perf_counter() - started)
            at_end = tally.step == self.steps
            if at_end or self._is_overdue() or tally.step % settings.preview_every == 0:
                self._preview()
            if at_end:
                self._check_result()
            if at_end or tally.step % settings.checkpoint_every == 0:
                self._save(regular=True)

    def recover(self, error: Unhealthy) -> None:
        """Start again, once, from a safe state; raises DivergedError the second time."""
        tally = self.state.tally
        if tally.restarts >= MAX_RESTARTS:
            raise DivergedError(
                f"{error} It was the second time, at step {tally.step}; the first: {tally.reason}.",
                "Lower the learning rate or the guidance scale, or try another seed.",
            ) from None
        safe = self.store.load_regular() if error.reason == "nan" else None
        fresh = RunState.fresh(self.request, self.device, tally.restarts + 1)
        fresh.tally.seconds, fresh.tally.sketching, fresh.tally.reason = tally.seconds, tally.sketching, error.reason
        if safe is not None:
            fresh.unpack_field(safe)
            fresh.tally.step = safe.values["tally"]["step"]
        self.stepper.adopt(fresh)
        self.saved_at = -1
        text = f"{error} Starting again from step {fresh.tally.step} at half the learning rate."
        self.report(Message("warning", text))

    def _resume(self) -> None:
        def warn(text: str) -> None:
            self.report(Message("warning", text))

        checkpoint = self.store.load(warn)
        if checkpoint is None:
            return
        state = self.state
        if checkpoint.values["tally"]["restarts"]:
            state = RunState.fresh(self.request, self.device, checkpoint.values["tally"]["restarts"])
        if not state.unpack(checkpoint):
            warn("The checkpoint is from another kind of device; the result will differ a little from a run on one.")
        self.stepper.adopt(state)
        self.saved_at = state.tally.step
        self.report(Message("info", f"Going on from step {state.tally.step}."))

    def _made(self, step: int) -> bool:
        """Make a step; where the device's memory runs out, the guidance makes do with less, and it is made again."""
        try:
            self.stepper.make(step)
        except torch.OutOfMemoryError as error:
            said = spared(self.stepper.guidance, error)
            self.report(Message("warning", f"{said} Nothing is lost: step {step} is made again."))
            return False
        return True

    def _check_result(self) -> None:
        """A short run may end before a dead field has been dead for long enough: look at the whole once more."""
        check_parameters(self.state.parameters)
        empty, full = look(render_preview(self.stepper.renderer).opacity, preview_cameras())
        if empty:
            raise Unhealthy("vanished", "The object vanished: at the end of the run all views are empty.")
        if full and shell_is_full(self.state.field.density, self.device):
            raise Unhealthy("exploded", "The object fills all space at the end of the run.")

    def _save(self, *, regular: bool) -> None:
        if self.saved_at == self.state.tally.step and not regular:
            return
        check_parameters(self.state.parameters)
        self.store.save(self.state.pack(regular=regular))
        self.saved_at = self.state.tally.step

    def _is_overdue(self) -> bool:
        """Whether a preview is due, going by how long the last few steps took."""
        passed = time.perf_counter() - self.previewed
        return passed > _PREVIEW_SECONDS or passed + max(list(self.recent)[-3:]) > _PREVIEW_LIMIT

    def _preview(self) -> None:
        self.previewed = time.perf_counter()
        path = self.folder / "preview.png"
        write_atomically(path, preview_png(render_preview(self.stepper.renderer)))
        self.report(Preview(str(path), self.state.tally.step))

    def _time(self, seconds: float) -> None:
        tally = self.state.tally
        tally.seconds += seconds
        self.recent.append(seconds)
        now = time.perf_counter()
        if now - self.reported >= _REPORT_SECONDS or tally.step == self.steps:
            self.reported = now
            # The median, because a step now and then compiles a kernel.
            left = (self.steps - tally.step) * statistics.median(self.recent)
            self.report(Progress(tally.step, self.steps, left, tally.loss))
