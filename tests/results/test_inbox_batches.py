"""Entries of a stream: what is no output is left out, and the rest is read."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.messages import ErrorInfo, FinishReason, Output, error_output
from inferq.results.batches import read_entry

GOOD = Output("r", 0, 3, (7, 8), "text")


def batch(*rows: Any) -> list[bytes]:
    return [b"o", msgpack.packb(rows)]


def end(*row: Any) -> list[bytes]:
    return [b"end", msgpack.packb(row)]


def test_a_batch_holds_outputs_in_order() -> None:
    more = GOOD._replace(index=5, finished=True, finish_reason="stop")
    assert list(read_entry(batch(GOOD.to_wire(), more.to_wire()))) == [GOOD, more]


def test_the_entry_that_makes_a_stream_holds_nothing() -> None:
    assert list(read_entry([b"new", b""])) == []
    assert list(read_entry([])) == []
    assert list(read_entry([b"o"])) == []


def test_a_bad_row_does_not_hide_the_good_ones() -> None:
    bad: list[Any] = [None, [], GOOD.to_wire()[:8], (*GOOD.to_wire(), False), {"a": 1}, 7]
    rows = [row for pair in zip(bad, [GOOD.to_wire()] * len(bad), strict=True) for row in pair]
    assert list(read_entry(batch(*rows))) == [GOOD] * len(bad)


def test_an_error_that_is_no_end_is_no_output() -> None:
    assert list(read_entry(batch(GOOD._replace(error=ErrorInfo("a", "b")).to_wire()))) == []


def test_nobody_on_the_wire_can_say_restarted() -> None:
    forged = [*GOOD.to_wire(), True]
    assert list(read_entry(batch(forged))) == []


def test_an_end_by_a_script_is_an_error_output() -> None:
    [output] = read_entry(end("r", 2, "error", "attempts", "too often"))
    assert output == error_output("r", FinishReason.ERROR, "attempts", "too often", attempt=2)


@pytest.mark.parametrize(
    "row",
    [
        (),
        ("r", 2, "error", "code"),
        ("r", 2, "stop", "code", "message"),
        ("r", 2, [], "code", "message"),
        ("r", -1, "error", "code", "message"),
        ("r", True, "error", "code", "message"),
        ("r", "2", "error", "code", "message"),
        (None, 2, "error", "code", "message"),
        ("r", 2, "error", None, "message"),
    ],
)
def test_what_is_no_end_is_left_out(row: tuple[Any, ...]) -> None:
    assert list(read_entry(end(*row))) == []


@given(st.sampled_from([b"o", b"end"]), st.binary(max_size=60))
def test_any_bytes_are_read_without_an_error(name: bytes, blob: bytes) -> None:
    list(read_entry([name, blob]))


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=5)
    | st.binary(),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=15,
)


@given(st.sampled_from([b"o", b"end"]), anything)
def test_any_msgpack_is_read_without_an_error(name: bytes, value: Any) -> None:
    list(read_entry([name, msgpack.packb(value)]))


def test_deep_nesting_is_read_without_an_error() -> None:
    assert list(read_entry([b"o", b"\x91" * 100_000 + b"\x01"])) == []
