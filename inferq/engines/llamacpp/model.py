"""A loaded model: its weights, its vocabulary, its chat template."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence

from inferq.engines.llamacpp.chat import apply_template
from inferq.engines.llamacpp.files import check_gguf
from inferq.engines.llamacpp.handles import Closing, Handle
from inferq.engines.llamacpp.library import library
from inferq.engines.llamacpp.structs import LOAD_MODE_MMAP, LOAD_MODE_READ
from inferq.errors import EngineStartError

_DESCRIPTION_BYTES = 256
_PIECE_BYTES = 64


class LlamaModel(Closing):
    """A model that llama.cpp has loaded; any number of contexts may share it.

    Its methods may be called from any thread. After ``close`` they raise ``RuntimeError``.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, n_gpu_layers: int = 0, use_mmap: bool = True
    ) -> None:
        """Load the GGUF file at ``path``.

        ``n_gpu_layers`` is how many layers go to the GPU (-1: all). ``use_mmap`` maps the
        file instead of reading it, so that processes share its pages. Raises
        ``EngineStartError`` when the file is missing, damaged or not supported.
        """
        check_gguf(path)
        self._library = library()
        call, log = self._library.call, self._library.log
        params = call.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        params.load_mode = LOAD_MODE_MMAP if use_mmap else LOAD_MODE_READ
        log.clear()
        pointer = call.llama_model_load_from_file(os.fsencode(path), params)
        if not pointer:
            raise EngineStartError(log.explain(f"llama.cpp cannot load model {os.fspath(path)}"))
        self._handle: Handle | None = Handle(pointer, call.llama_model_free)
        if call.llama_model_has_encoder(pointer):
            self.close()
            raise EngineStartError(f"model {os.fspath(path)} has an encoder: not supported")
        self._pieces: dict[int, bytes] = {}
        self.vocab_size: int = call.llama_vocab_n_tokens(self._vocab(self._handle))
        """Number of tokens; valid tokens are 0 to ``vocab_size - 1``."""
        self.n_ctx_train: int = call.llama_model_n_ctx_train(pointer)
        """Tokens that the model was trained to see at once."""
        text = ctypes.create_string_buffer(_DESCRIPTION_BYTES)
        call.llama_model_desc(pointer, text, _DESCRIPTION_BYTES)
        self.description: str = text.value.decode("utf-8", "replace")
        """Architecture, size and quantization, such as ``"llama 7B Q4_0"``."""

    def handle(self) -> Handle:
        """Return what a context must hold to keep the weights in memory."""
        if self._handle is None:
            raise RuntimeError("this model is closed")
        return self._handle

    # Callers keep the handle in a local variable while they use the pointer, so that another
    # thread's `close` cannot free the weights under them.
    def _vocab(self, handle: Handle) -> int:
        vocab: int = self._library.call.llama_model_get_vocab(handle.pointer("model"))
        return vocab

    def tokenize(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        """Return the tokens of ``text``.

        ``add_special`` adds the begin and end tokens that the model was trained with.
        ``parse_special`` reads the names of control tokens, such as ``<|im_end|>``, as these
        tokens instead of as plain text: leave it off for text of users. Lone surrogates
        become ``?``.
        """
        handle = self.handle()
        vocab = self._vocab(handle)
        # llama.cpp throws a C++ exception, which ends the process, on broken UTF-8.
        data = text.encode("utf-8", "replace")
        size = len(data) + 2
        while True:
            tokens = (ctypes.c_int32 * size)()
            count: int = self._library.call.llama_tokenize(
                vocab, data, len(data), tokens, size, add_special, parse_special
            )
            if count >= 0:
                return tokens[:count]
            size = -count

    def piece(self, token: int) -> bytes:
        """Return the bytes of ``token``; a character may be split over several tokens.

        Control tokens have none. Raises ``ValueError`` when there is no such token.
        """
        piece = self._pieces.get(token)
        return self._piece(token) if piece is None else piece

    def _piece(self, token: int) -> bytes:
        handle = self._check_token(token)
        vocab = self._vocab(handle)
        size = _PIECE_BYTES
        while True:
            text = ctypes.create_string_buffer(size)
            count: int = self._library.call.llama_token_to_piece(vocab, token, text, size, 0, False)
            if count >= 0:
                self._pieces[token] = text.raw[:count]
                return self._pieces[token]
            size = -count

    def is_end(self, token: int) -> bool:
        """Return whether ``token`` ends a generation. Raises ``ValueError`` when unknown."""
        self._check_token(token)
        return token in self._ends

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """All tokens that end a generation, in ascending order."""
        self.handle()
        return tuple(sorted(self._ends))

    @functools.cached_property
    def _ends(self) -> frozenset[int]:
        handle = self.handle()
        vocab, is_end = self._vocab(handle), self._library.call.llama_vocab_is_eog
        return frozenset(token for token in range(self.vocab_size) if is_end(vocab, token))

    def chat_prompt(self, messages: Sequence[tuple[str, str]]) -> str:
        """Return the prompt for ``(role, content)`` messages, open for the assistant's turn.

        Uses the chat template in the model file. Contents are not escaped: tokenize the
        result with ``parse_special``. Raises ``ValueError`` when the model has no template,
        llama.cpp does not know it, or a message holds a NUL character.
        """
        handle = self.handle()
        template = self._library.call.llama_model_chat_template(handle.pointer("model"), None)
        if not template:
            raise ValueError("the model file has no chat template: use a plain prompt")
        return apply_template(self._library, template, messages)

    def _check_token(self, token: int) -> Handle:
        # llama.cpp ends the process when asked for the text of a token that does not exist.
        handle = self.handle()
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"token {token} is not in the vocabulary of {self.vocab_size}")
        return handle

    def close(self) -> None:
        """Give up the model; does nothing the second time.

        The weights are freed when the last of its contexts is closed.
        """
        self._handle = None
        self._pieces = {}
