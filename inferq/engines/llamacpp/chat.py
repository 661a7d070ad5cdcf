"""Chat templates, applied by llama.cpp."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from inferq.engines.llamacpp.library import Library
from inferq.engines.llamacpp.structs import ChatMessage

_ROOM_PER_MESSAGE = 64


def apply_template(library: Library, template: bytes, messages: Sequence[tuple[str, str]]) -> str:
    """Return the prompt that ``template`` makes of ``(role, content)`` messages.

    llama.cpp recognises the common templates by their text and writes their output itself;
    it does not run the template. Raises ``ValueError`` when it does not recognise this one,
    when there are no messages, or when one holds a NUL character.
    """
    if not messages:
        raise ValueError("messages: there must be at least one")
    encoded = [(_c_string(role), _c_string(content)) for role, content in messages]
    array = (ChatMessage * len(encoded))(*(ChatMessage(*message) for message in encoded))
    size = sum(len(role) + len(content) + _ROOM_PER_MESSAGE for role, content in encoded)
    while True:
        text = ctypes.create_string_buffer(size)
        count: int = library.call.llama_chat_apply_template(
            template, array, len(encoded), True, text, size
        )
        if count < 0:
            raise ValueError("llama.cpp does not know the model's chat template")
        if count <= size:
            return text.raw[:count].decode("utf-8", "replace")
        size = count


def _c_string(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("messages: a message holds a NUL character")
    return text.encode("utf-8", "replace")
