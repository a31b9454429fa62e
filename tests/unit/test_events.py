"""Events: one line each, back unchanged, and foreign lines are none."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import events
from backend.events import Event, Heartbeat, Progress, decode, encode

KINDS: tuple[Any, ...] = typing.get_args(Event)


@st.composite
def any_event(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(KINDS))
    of: dict[Any, st.SearchStrategy[Any]] = {
        str: st.text(),
        int: st.integers(),
        float: st.floats(allow_nan=False, allow_infinity=False),
    }
    hints = typing.get_type_hints(kind)
    return kind(**{name: draw(of[hints[name]]) for name in kind._fields})


@given(any_event())
@settings(max_examples=100, deadline=None)
def test_every_event_survives_its_line(event: Event) -> None:
    line = encode(event)
    assert "\n" not in line
    assert line.isascii()
    for found in (decode(line), decode(line + "\n")):
        assert type(found) is type(event)
        assert found == event


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\n",
        "Loading pipeline: 100%",
        "{}",
        "[]",
        "3",
        "null",
        '{"event": "progress"}',
        '{"event": "unknown"}',
        '{"event": []}',
        '{"event": "heartbeat", "x": 1}',
        '{"event": "progress", "step": 1',
        '"phase"',
        "[" * 100_000,
        '{"event": "progress", "step": "one", "total": 2, "seconds_left": 1}',
        '{"event": "phase", "name": null}',
    ],
)
def test_a_foreign_line_is_no_event(line: str) -> None:
    assert decode(line) is None


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_lacks_never_reaches_the_line(number: float) -> None:
    line = encode(Progress(step=1, total=2, seconds_left=number, loss=number))
    assert "NaN" not in line
    assert "Infinity" not in line
    assert decode(line) == Progress(step=1, total=2, seconds_left=0.0, loss=0.0)


def test_each_kind_has_its_own_name() -> None:
    assert len({kind.event for kind in KINDS}) == len(KINDS)
    assert decode(encode(Heartbeat())) == Heartbeat()
    assert set(KINDS) == {getattr(events, kind.__name__) for kind in KINDS}
