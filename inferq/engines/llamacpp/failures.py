"""Why a step of llama.cpp failed."""

from __future__ import annotations

from inferq.errors import EngineStepError

NO_KV_SLOT = 1

_MEANINGS = {
    NO_KV_SLOT: "the key-value memory has no room for the batch",
    2: "the step was aborted",
    -1: "the batch is not valid",
}


class DecodeFailed(EngineStepError):
    """Raised when llama.cpp did not compute a batch.

    ``status`` is what ``llama_decode`` returned. ``no_kv_slot`` is true when the memory was
    full: nothing was computed, the context stays usable, and the same rows may be tried again
    after a sequence was forgotten.
    """

    def __init__(self, status: int, said: str = "") -> None:
        meaning = _MEANINGS.get(status, "llama.cpp failed to compute it")
        super().__init__(f"{meaning} [{status}]" + (f" (llama.cpp: {said})" if said else ""))
        self.status = status
        self.no_kv_slot = status == NO_KV_SLOT
