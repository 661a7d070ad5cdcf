from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.engines.answer import Answer
from inferq.messages import FinishReason, Request


def answer(*, produced: int = 0, **options: Any) -> Answer:
    fields = {"request_id": "r", "prompt": "x", **options}
    return Answer(Request.parse(fields), produced=produced)


def shown(of: Answer, *pieces: str | bytes) -> list[str]:
    texts = []
    for piece in pieces:
        data = piece.encode() if isinstance(piece, str) else piece
        text, reason = of.push(7, data, is_end=False)
        texts.append(text)
        if reason is not None:
            texts.append(f"<{reason}>")
            break
    return texts


def test_text_without_stop_strings_is_shown_at_once() -> None:
    assert shown(answer(), "a", "b", "") == ["a", "b", ""]


def test_a_stop_string_and_what_follows_it_are_never_shown() -> None:
    assert shown(answer(stop="END"), "abENDcd") == ["ab", "<stop>"]


def test_a_stop_string_across_tokens_is_never_shown() -> None:
    assert shown(answer(stop="END"), "aE", "N", "D!") == ["a", "", "", "<stop>"]


def test_text_is_held_back_only_while_it_may_start_a_stop_string() -> None:
    assert shown(answer(stop="END"), "aE", "N", "x", "E", "EN", ".") == [
        "a", "", "ENx", "", "E", "EN.",
    ]  # fmt: skip


def test_of_several_stop_strings_the_first_in_the_text_counts() -> None:
    assert shown(answer(stop=["zz", "b"]), "abzz") == ["a", "<stop>"]


def test_held_back_text_is_shown_when_the_answer_ends_otherwise() -> None:
    assert shown(answer(stop="END", max_tokens=2), "a", "EN") == ["a", "EN", "<length>"]
    it = answer(stop="END")
    assert shown(it, "EN") == [""]
    assert it.push(2, b"", is_end=True) == ("EN", FinishReason.STOP)


def test_a_character_is_shown_when_its_last_byte_is_there() -> None:
    assert shown(answer(), b"\xe2", b"\x82", b"\xac!") == ["", "", "€!"]


def test_bytes_that_never_make_a_character_are_replaced() -> None:
    assert shown(answer(max_tokens=2), b"a\xe2", b"\x82") == ["a", "\ufffd", "<length>"]
    assert shown(answer(), b"\xff", b"b") == ["\ufffd", "b"]


def test_max_tokens_ends_the_answer() -> None:
    assert shown(answer(max_tokens=1), "a") == ["a", "<length>"]
    assert shown(answer(max_tokens=3, produced=2), "c") == ["c", "<length>"]


def test_the_end_token_ends_the_answer_unless_it_is_ignored() -> None:
    assert answer().push(2, b"", is_end=True) == ("", FinishReason.STOP)
    assert answer(ignore_eos=True).push(2, b"", is_end=True) == ("", None)


def test_a_stop_token_ends_the_answer_and_is_not_shown() -> None:
    it = answer(stop_token_ids=[5], ignore_eos=True)
    assert it.push(4, b"a", is_end=False) == ("a", None)
    assert it.push(5, b"b", is_end=False) == ("", FinishReason.STOP)


def test_before_min_tokens_nothing_but_the_bound_ends_the_answer() -> None:
    it = answer(min_tokens=3, max_tokens=3, stop="x", stop_token_ids=[5])
    could_end = it.may_end
    assert it.push(2, b"a", is_end=True).finish_reason is None
    assert it.push(5, b"b", is_end=False).finish_reason is None
    assert (could_end, it.may_end) == (False, True)
    assert it.push(6, b"c", is_end=False).finish_reason is FinishReason.LENGTH


def test_the_token_that_reaches_min_tokens_may_be_the_end() -> None:
    it = answer(min_tokens=2)
    it.push(4, b"a", is_end=False)
    assert it.push(2, b"", is_end=True).finish_reason is FinishReason.STOP


@pytest.mark.parametrize("produced", [0, 1, 2])
def test_tokens_of_an_earlier_node_count(produced: int) -> None:
    it = answer(min_tokens=2, produced=produced)
    assert it.may_end is (produced >= 1)


letters = st.text("ab€", max_size=12)


@given(letters, st.lists(st.text("ab€", min_size=1, max_size=4), max_size=3), st.data())
def test_what_is_shown_is_the_text_up_to_the_first_stop_string(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    it = answer(stop=stops, max_tokens=len(pieces) + 1)
    parts: list[str] = []
    reason = None
    for piece in pieces:
        part, reason = it.push(7, piece, is_end=False)
        parts.append(part)
        assert not any(stop in "".join(parts) for stop in stops)
        if reason is not None:
            break
    if reason is None:
        parts.append(it.push(2, b"", is_end=True).text)
    got = "".join(parts)
    first_seen = earliest_complete(text, stops)
    assert got == (text if first_seen is None else text[:first_seen]) or (
        # stop strings that overlap within one token: the leftmost wins
        any(text.startswith(got + stop) for stop in stops)
    )
    assert (reason is FinishReason.STOP) == any(stop in text for stop in stops)


def earliest_complete(text: str, stops: list[str]) -> int | None:
    """Where the stop string starts that is complete first when reading on."""
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return min(ends)[1] if ends else None
