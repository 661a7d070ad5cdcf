from __future__ import annotations

import sys
from pathlib import Path

import pytest

from inferq.engines.llamacpp import library as module
from inferq.engines.llamacpp.blocks import BLOCKS
from inferq.engines.llamacpp.library import Library, library
from inferq.engines.llamacpp.structs import ContextParams, ModelParams, wrong_defaults
from inferq.errors import EngineStartError


@pytest.fixture(autouse=True)
def needs_xllamacpp() -> None:
    pytest.importorskip("xllamacpp")


def test_the_library_is_loaded_once() -> None:
    assert library() is library()


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setitem(sys.modules, "xllamacpp.xllamacpp", None)
    monkeypatch.setattr(module, "_loaded", None)
    with pytest.raises(EngineStartError, match=r'pip install "inferq\[llamacpp\]"'):
        library()


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.so"
    path.write_bytes(b"not a shared object")
    with pytest.raises(EngineStartError, match=r"wrong\.so"):
        Library(str(path))


def test_a_library_without_llama_functions_is_refused() -> None:
    ctypes_library = __import__("_ctypes").__file__
    if ctypes_library is None:
        pytest.skip("_ctypes is built in")
    with pytest.raises(EngineStartError, match="llama_backend_init"):
        Library(ctypes_library)


def test_the_struct_layouts_are_those_of_the_library() -> None:
    call = library().call
    assert not wrong_defaults(
        call.llama_model_default_params(), call.llama_context_default_params()
    )


def test_another_struct_layout_is_noticed() -> None:
    call = library().call
    context = call.llama_context_default_params()
    shifted = ContextParams.from_buffer_copy(b"\0\0\0\0" + bytes(context)[:-4])
    found = wrong_defaults(call.llama_model_default_params(), shifted)
    assert found[0] == "n_ctx is 0, not 512"
    shifted_model = ModelParams.from_buffer_copy(bytes(8) + bytes(context)[:-8][: 80 + 248])
    assert wrong_defaults(shifted_model, context)


def test_a_build_with_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = library().call._name
    monkeypatch.setattr(module, "wrong_defaults", lambda *_: ["n_ctx is 0, not 512"])
    with pytest.raises(EngineStartError, match="n_ctx is 0, not 512"):
        Library(path)


def test_the_block_sizes_are_those_of_the_library() -> None:
    call = library().call
    real = {kind: (call.ggml_blck_size(kind), call.ggml_type_size(kind)) for kind in BLOCKS}
    assert real == BLOCKS
