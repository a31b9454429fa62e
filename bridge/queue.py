"""The jobs of this session: one runs, the others wait for it or are paused. Nothing of this is saved in a .blend."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import Literal

from ..backend.errors import DreamlatheError
from . import generation, log, supervisor
from .generation import Placing, Plan, start_job
from .job import Job, Status
from .record import Record, drop_record, note_end, read_record, write_record

State = Literal["waiting", "running", "paused", "placing"]


class Ticket:
    """A job that is not over yet, and what it is doing."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.job: Job | None = None
        self.state: State = "waiting"

    @property
    def status(self) -> Status | None:
        """Of the job, once it has been started."""
        return None if self.job is None else self.job.status


_tickets: list[Ticket] = []


def tickets() -> tuple[Ticket, ...]:
    """All of them: the running one first, then those that wait in their order, then the paused ones."""
    rank = {"placing": 0, "running": 1, "waiting": 2, "paused": 3}
    return tuple(sorted(_tickets, key=lambda ticket: rank[ticket.state]))


def current() -> Ticket | None:
    """The one that runs."""
    return next((ticket for ticket in _tickets if ticket.state in ("running", "placing")), None)


def find(folder: object) -> Ticket | None:
    """The one of a job's folder."""
    return next((ticket for ticket in _tickets if ticket.plan.folder == folder), None)


def busy() -> bool:
    """One runs or waits."""
    return any(ticket.state != "paused" for ticket in _tickets)


def add(plan: Plan) -> Ticket:
    """Note the job in its folder, and start it as soon as no other runs.

    Raises SetupError if it is its turn and the worker does not start.
    """
    with contextlib.suppress(OSError):  # the worker says it better
        start_from = "" if plan.start_from is None else str(plan.start_from)
        write_record(plan.folder, Record(plan.request, plan.placement, start_from=start_from))
    ticket = Ticket(plan)
    _tickets.append(ticket)
    if current() is None:
        _start(ticket)
    return ticket


def pause(ticket: Ticket) -> None:
    """Stop it after a checkpoint: its worker goes, and with it all the memory it took."""
    if ticket.state == "waiting":
        ticket.state = "paused"
    elif ticket.state == "running" and ticket.job is not None:
        ticket.job.pause()


def resume(ticket: Ticket) -> None:
    """Let a paused one go on from its checkpoint: at once if none runs, else before those that wait."""
    if ticket.state != "paused":
        return
    ticket.state = "waiting"
    _tickets.remove(ticket)
    _tickets.insert(0, ticket)
    if current() is None:
        _start(ticket)


def cancel(ticket: Ticket) -> None:
    """Stop it for good; its folder is kept."""
    if ticket.state == "running" and ticket.job is not None:
        ticket.job.cancel()
    elif ticket.state in ("waiting", "paused"):
        _tickets.remove(ticket)
        note_end(ticket.plan.folder, "cancelled")
        _drop_unbegun(ticket)


def follow_file() -> None:
    """A file was saved, perhaps under another name, or loaded: jobs of its scenes belong there, in their notes too."""
    for ticket in _tickets:
        plan = generation.follow_file(ticket.plan)
        noted = read_record(plan.folder)
        if noted is not None and plan.placement != ticket.plan.placement:
            with contextlib.suppress(OSError):
                write_record(plan.folder, dataclasses.replace(noted, placement=plan.placement))
        ticket.plan = plan


def clear() -> None:
    """Forget all; their folders still tell of them. What runs is ended by the supervisor."""
    _tickets.clear()


def _start(ticket: Ticket) -> None:
    try:
        ticket.job = start_job(ticket.plan)
    except DreamlatheError:
        _tickets.remove(ticket)
        drop_record(ticket.plan.folder)
        raise
    ticket.state = "running"
    job = ticket.job
    job.listener = functools.partial(log.tell, ticket.plan.request.title)
    supervisor.start(job, lambda: _ended(ticket, job))


def _ended(ticket: Ticket, job: Job) -> None:
    """The worker is gone: place the result, or note what happened; then it is the next one's turn."""
    if ticket not in _tickets:
        return
    state = job.status.state
    if state == "finished":
        ticket.state = "placing"
        placing = Placing(ticket.plan, job.folder)
        supervisor.start(placing, lambda: _placed(ticket, job, placing))
        return
    if state == "paused":
        ticket.state = "paused"
        supervisor.forget()
    else:
        _tickets.remove(ticket)
        note_end(ticket.plan.folder, "cancelled" if state == "cancelled" else job.status.failure)
        _drop_unbegun(ticket)
    _next()


def _placed(ticket: Ticket, job: Job, placing: Placing) -> None:
    if ticket in _tickets:
        _tickets.remove(ticket)
    if placing.error is not None:
        job.fail(placing.error)
    _next()


def _next() -> None:
    """Start the first that waits; one that does not start gives way to the next."""
    supervisor.changed()
    while current() is None:
        ticket = next((each for each in _tickets if each.state == "waiting"), None)
        if ticket is None:
            return
        try:
            _start(ticket)
        except DreamlatheError as error:
            supervisor.complain(error)


def _drop_unbegun(ticket: Ticket) -> None:
    """A job whose worker wrote nothing leaves no folder."""
    if not (ticket.plan.folder / "request.json").exists():
        drop_record(ticket.plan.folder)
