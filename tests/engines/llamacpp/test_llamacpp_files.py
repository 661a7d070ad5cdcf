from __future__ import annotations

import contextlib
import importlib.metadata
import struct
import time
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferq.engines.llamacpp.files import check_gguf, find_model
from inferq.engines.llamacpp.gguf import BadHeader, required_size
from inferq.errors import EngineStartError


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def tiny_gguf(alignment: int = 64) -> bytes:
    """One F32 tensor of 4 numbers, an array of strings, an array of numbers, an alignment."""
    pairs = [
        text(b"general.alignment") + struct.pack("<II", 4, alignment),
        text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama"),
        text(b"tokens") + struct.pack("<IIQ", 9, 8, 2) + text(b"a") + text(b"bc"),
        text(b"scores") + struct.pack("<IIQ", 9, 6, 3) + bytes(12),
    ]
    info = text(b"weight") + struct.pack("<IQIQ", 1, 4, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + b"".join(pairs) + info
    return head + bytes(-len(head) % alignment) + bytes(16)


def test_a_given_path_is_taken_as_it_is() -> None:
    assert find_model("somewhere/model.gguf") == Path("somewhere/model.gguf")


def test_the_packaged_model_is_found_and_whole() -> None:
    path = find_model(None)
    begin = time.perf_counter()
    check_gguf(path)
    assert time.perf_counter() - begin < 1
    assert path.suffix == ".gguf"


def test_a_missing_package_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(EngineStartError, match=r"inferq\[llamacpp\]"):
        find_model(None)


def test_the_needed_size_of_a_file_is_its_size() -> None:
    assert required_size(tiny_gguf()) == len(tiny_gguf())
    assert len(find_model(None).read_bytes()) == required_size(find_model(None).read_bytes())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"GG", "truncated"),
        (b"GGUF\3\0\0\0", "truncated"),
        (b"PK\3\4" + bytes(100), "not a GGUF file"),
        (b"<!doctype html><html>", "not a GGUF file"),
        (tiny_gguf()[:-1], "truncated: it has"),
        (tiny_gguf()[:100], "ends inside its header"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1 "),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version 50331648 "),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "claims 9223372036854775808 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "claims 9223372036854775808 key"),
        (tiny_gguf(alignment=64).replace(struct.pack("<II", 4, 64), bytes(8)), "ends inside"),
        (tiny_gguf().replace(struct.pack("<II", 4, 64), struct.pack("<II", 4, 48)), "alignment"),
        (tiny_gguf().replace(struct.pack("<II", 9, 6), struct.pack("<II", 9, 9)), "type 9"),
        (tiny_gguf().replace(struct.pack("<IIQ", 9, 8, 2), b"\xff" * 16), "unknown type"),
    ],
)
def test_a_broken_file_is_refused_with_its_path(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(EngineStartError, match=reason) as caught:
        check_gguf(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match="does not exist"):
        check_gguf(tmp_path / "none.gguf")
    with pytest.raises(EngineStartError, match="is a directory"):
        check_gguf(tmp_path)
    with pytest.raises(EngineStartError, match="not usable"):
        check_gguf("nul\0byte.gguf")


def test_a_truncated_copy_of_a_real_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    with find_model(None).open("rb") as whole:
        path.write_bytes(whole.read(5_000_000))
    with pytest.raises(EngineStartError, match=r"truncated: it has 5000000 bytes of at least 98"):
        check_gguf(path)


def test_a_header_of_many_empty_strings_is_read_in_bounded_time(tmp_path: Path) -> None:
    count = 1 << 23
    path = tmp_path / "model.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(b"t") + struct.pack("<IIQ", 9, 8, count)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 8 * count)
    begin = time.perf_counter()
    with pytest.raises(EngineStartError, match=f"claims {count} strings"):
        check_gguf(path)
    assert time.perf_counter() - begin < 1


@settings(
    max_examples=300,
    database=None,
    deadline=timedelta(seconds=1),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    changes=st.lists(
        st.tuples(st.integers(4, len(tiny_gguf()) - 1), st.binary(min_size=1, max_size=9)),
        max_size=4,
    ),
    keep=st.integers(0, len(tiny_gguf())),
    extra=st.binary(max_size=40),
)
def test_a_damaged_header_is_refused_or_passes(
    tmp_path: Path, changes: list[tuple[int, bytes]], keep: int, extra: bytes
) -> None:
    data = bytearray(tiny_gguf())
    for at, new in changes:
        data[at : at + len(new)] = new
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(data[: keep if keep % 2 else None]) + extra)
    with contextlib.suppress(EngineStartError):
        check_gguf(path)


@settings(max_examples=100, database=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tail: bytes) -> None:
    data = b"GGUF\3\0\0\0" + tail
    with contextlib.suppress(BadHeader):
        assert required_size(data) >= 0
