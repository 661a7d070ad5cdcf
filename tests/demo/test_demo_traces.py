"""Traces of both formats, right and wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferq.demo.traces import TraceError, parse_azure, parse_mooncake, read_trace
from inferq.demo.workload import Arrival

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8

2023-11-16 18:17:05.9799600,110,0
"""
MOONCAKE = """{"timestamp": 1000, "input_length": 600, "output_length": 5, "hash_ids": [0, 7]}
{"timestamp": 27500, "input_length": 1, "output_length": 9}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "trace"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_an_azure_trace_starts_at_zero_and_keeps_its_gaps(tmp_path: Path) -> None:
    arrivals = read_trace(write(tmp_path, AZURE))
    assert [a.at_s for a in arrivals] == pytest.approx([0, 0.052, 2.0], abs=1e-5)
    assert [(a.prompt_tokens, a.max_tokens) for a in arrivals] == [(4808, 10), (3180, 8), (110, 1)]


def test_a_mooncake_trace_counts_milliseconds_and_keeps_its_blocks(tmp_path: Path) -> None:
    arrivals = read_trace(write(tmp_path, MOONCAKE))
    assert arrivals == [Arrival(0.0, 600, 5, (0, 7)), Arrival(26.5, 1, 9)]


def test_only_as_many_lines_are_read_as_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, MOONCAKE + "broken")
    assert len(read_trace(path, 2)) == 2
    with pytest.raises(TraceError, match="line 3"):
        read_trace(path)


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    text = "\ufeff" + AZURE.replace("\n", "\r\n")
    assert len(read_trace(write(tmp_path, text))) == 3


def test_arrivals_out_of_order_are_sorted(tmp_path: Path) -> None:
    first, second = MOONCAKE.splitlines()
    arrivals = read_trace(write(tmp_path, f"{second}\n{first}\n"))
    assert [a.at_s for a in arrivals] == [0.0, 26.5]


@pytest.mark.parametrize(
    "line",
    [
        "2023-11-16 18:17:03,1",
        "2023-11-16 18:17:03,1,2,3",
        "yesterday,1,2",
        "2023-11-16 18:17:03,0,2",
        "2023-11-16 18:17:03,1,-2",
        "2023-11-16 18:17:03,1.5,2",
        "2023-11-16 18:17:03," + "9" * 5000 + ",2",
    ],
)
def test_a_wrong_azure_line_is_named_with_what_is_expected(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, AZURE + line + "\n")
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}, line 6: expected TIMESTAMP,ContextTokens")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "{}",
        '{"timestamp": NaN, "input_length": 1, "output_length": 1}',
        '{"timestamp": 1e999, "input_length": 1, "output_length": 1}',
        '{"timestamp": 0, "input_length": "1", "output_length": 1}',
        '{"timestamp": 0, "input_length": true, "output_length": 1}',
        '{"timestamp": 0, "input_length": 0, "output_length": 1}',
        '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": ["a"]}',
        '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": null}',
        "[" * 100_000,
    ],
)
def test_a_wrong_mooncake_line_is_named_with_what_is_expected(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, MOONCAKE + line + "\n")
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}, line 3: expected a JSON object")
    assert len(str(caught.value)) < 400 + len(path)


@pytest.mark.parametrize("text", ["", "\n\n", "TIMESTAMP,ContextTokens,GeneratedTokens\n"])
def test_a_trace_without_requests_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(TraceError, match="holds no requests"):
        read_trace(write(tmp_path, text))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="line 1: expected the header"):
        read_trace(write(tmp_path, "hello\n"))
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match="no UTF-8 text"):
        read_trace(str(binary))
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(str(tmp_path))


@given(
    at_ms=st.integers(0, 10**9),
    prompt=st.integers(1, 10**6),
    output=st.integers(1, 10**6),
    hash_ids=st.lists(st.integers(0, 10**6)),
)
def test_what_a_mooncake_line_says_arrives(
    at_ms: int, prompt: int, output: int, hash_ids: list[int]
) -> None:
    fields = {
        "timestamp": at_ms,
        "input_length": prompt,
        "output_length": output,
        "hash_ids": hash_ids,
    }
    arrival = parse_mooncake(json.dumps(fields))
    assert arrival == Arrival(at_ms / 1000, prompt, output, tuple(hash_ids))


@given(at=st.datetimes(), prompt=st.integers(1, 10**6), output=st.integers(1, 10**6))
def test_what_an_azure_line_says_arrives(at: object, prompt: int, output: int) -> None:
    arrival = parse_azure(f"{at},{prompt},{output}")
    assert (arrival.prompt_tokens, arrival.max_tokens) == (prompt, output)


@given(text=st.text())
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("trace") / "any"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(TraceError):
        read_trace(str(path))
