from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferq.engines.llamacpp.chat import apply_template
from inferq.engines.llamacpp.files import find_model
from inferq.engines.llamacpp.library import library
from inferq.engines.llamacpp.model import LlamaModel
from inferq.errors import EngineStartError


def test_the_packaged_model_is_described(model: LlamaModel) -> None:
    assert model.description.startswith("llama")
    assert model.vocab_size == 49152
    assert model.n_ctx_train == 8192


def test_a_file_that_llama_cannot_load_is_explained(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF\3\0\0\0" + bytes(16))
    with pytest.raises(EngineStartError, match=r"model\.gguf.*llama\.cpp: .*") as caught:
        LlamaModel(path)
    assert "rchitecture" in str(caught.value)


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match="does not exist"):
        LlamaModel(tmp_path / "none.gguf")


def test_a_model_can_be_read_instead_of_mapped() -> None:
    pytest.importorskip("xllamacpp")
    with LlamaModel(find_model(None), use_mmap=False) as model:
        assert model.tokenize("hello", False, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello, world!",
        "naïve Ünïcödé",
        "日本語 текст",
        "👩‍👩‍👧 🎉",
        "a\0b",
        "\n\t  x",
        "x" * 3000,
    ],
)
def test_text_comes_back_from_its_tokens(model: LlamaModel, text: str) -> None:
    tokens = model.tokenize(text, False, False)
    assert b"".join(map(model.piece, tokens)).decode() == text


@settings(max_examples=60, database=None, deadline=None)
@given(text=st.text(st.characters(exclude_categories=()), max_size=60))
def test_any_text_can_be_tokenized(model: LlamaModel, text: str) -> None:
    # The vocabulary lacks some bytes, so that not every text comes back.
    for parse_special in (False, True):
        for token in model.tokenize(text, True, parse_special):
            assert isinstance(model.piece(token), bytes)


def test_lone_surrogates_become_question_marks(model: LlamaModel) -> None:
    tokens = model.tokenize("a\ud800b", False, False)
    assert b"".join(map(model.piece, tokens)) == b"a?b"


def test_names_of_control_tokens_are_tokens_only_on_demand(model: LlamaModel) -> None:
    assert len(model.tokenize("<|im_end|>", False, True)) == 1
    assert len(model.tokenize("<|im_end|>", False, False)) > 1


def test_a_chat_becomes_chatml(model: LlamaModel) -> None:
    prompt = model.chat_prompt([("system", "Be brief."), ("user", "Grüß Gott")])
    assert prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nGrüß Gott<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_long_chat_is_not_cut(model: LlamaModel) -> None:
    prompt = model.chat_prompt([("user", "x" * 100_000)] + [("user", "")] * 50)
    assert prompt.count("<|im_start|>") == 52
    assert "x" * 100_000 in prompt


def test_a_chat_that_cannot_be_written_is_refused(model: LlamaModel) -> None:
    with pytest.raises(ValueError, match="at least one"):
        model.chat_prompt([])
    with pytest.raises(ValueError, match="NUL"):
        model.chat_prompt([("user", "a\0b")])
    with pytest.raises(ValueError, match="does not know"):
        apply_template(library(), b"{{ something }}", [("user", "hi")])


def test_a_model_without_a_template_is_reported(
    model: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library().call, "llama_model_chat_template", lambda *_: None)
    with pytest.raises(ValueError, match="no chat template"):
        model.chat_prompt([("user", "hi")])


def test_end_tokens_end(model: LlamaModel) -> None:
    (im_end,) = model.tokenize("<|im_end|>", False, True)
    assert im_end in model.end_tokens
    assert model.is_end(im_end)
    assert model.piece(im_end) == b""
    assert not model.is_end(model.tokenize("hello", False, False)[0])


@pytest.mark.parametrize("token", [-1, 49152, 2**31])
def test_unknown_tokens_are_refused(model: LlamaModel, token: int) -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        model.piece(token)
    with pytest.raises(ValueError, match="vocabulary"):
        model.is_end(token)
