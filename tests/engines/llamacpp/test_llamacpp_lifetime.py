from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

from inferq.engines.llamacpp.batch import Row
from inferq.engines.llamacpp.context import LlamaContext
from inferq.engines.llamacpp.files import find_model
from inferq.engines.llamacpp.handles import Handle
from inferq.engines.llamacpp.model import LlamaModel
from inferq.engines.llamacpp.sampling import Sampler

SIZES = {"n_ctx": 256, "n_seq_max": 2, "n_batch": 64, "n_ubatch": 64, "n_threads": 1}


def test_a_handle_is_freed_exactly_once() -> None:
    freed: list[int] = []
    handle = Handle(7, freed.append)
    assert handle.pointer("thing") == 7
    handle.free()
    handle.free()
    with pytest.raises(RuntimeError, match="this thing is closed"):
        handle.pointer("thing")
    del handle
    gc.collect()
    assert freed == [7]


def test_in_a_cycle_what_is_needed_is_freed_last() -> None:
    freed: list[int] = []
    needed = Handle(1, freed.append)
    user = Handle(2, freed.append, needed)
    cycle: list[object] = [needed, user]
    cycle.append(cycle)
    del needed, user, cycle
    gc.collect()
    assert freed == [2, 1]


def test_closed_objects_refuse_to_work() -> None:
    pytest.importorskip("xllamacpp")
    model = LlamaModel(find_model(None))
    context = LlamaContext(model, **SIZES)
    sampler = Sampler(model)
    model.piece(5)
    index = context.decode([Row(0, [5], 0, True)])[0]
    model.close()
    model.close()
    uses: list[Callable[[], object]] = [
        lambda: model.tokenize("a", False, False),
        lambda: model.piece(5),
        lambda: model.is_end(5),
        lambda: model.end_tokens,
        lambda: model.chat_prompt([("user", "a")]),
        lambda: LlamaContext(model, **SIZES),
    ]
    for use in uses:
        with pytest.raises(RuntimeError, match="this model is closed"):
            use()
    # The context keeps the weights until it is closed itself.
    context.decode([Row(0, [6], 1, True)])
    sampler.sample(context, index)
    sampler.close()
    sampler.close()
    with pytest.raises(RuntimeError, match="this sampler is closed"):
        sampler.sample(context, index)
    context.close()
    context.close()
    uses = [
        lambda: context.decode([Row(0, [5], 0, True)]),
        lambda: context.forget(0),
        lambda: context.held(0),
        lambda: context.state_size(0),
        lambda: context.state_get(0, memoryview(bytearray(1))),
        lambda: context.state_set(0, memoryview(bytearray(1))),
        lambda: context.logits_ptr(0),
    ]
    for use in uses:
        with pytest.raises(RuntimeError, match="this context is closed"):
            use()


@pytest.mark.parametrize("threaded", [False, True])
def test_the_interpreter_exits_cleanly_with_everything_open(threaded: bool) -> None:
    pytest.importorskip("xllamacpp")
    script = textwrap.dedent(
        f"""
        import threading, time
        from inferq.engines.llamacpp.batch import Row
        from inferq.engines.llamacpp.context import LlamaContext
        from inferq.engines.llamacpp.files import find_model
        from inferq.engines.llamacpp.model import LlamaModel
        from inferq.engines.llamacpp.sampling import Sampler
        model = LlamaModel(find_model(None))
        context = LlamaContext(model, **{SIZES!r})
        sampler = Sampler(model, temperature=1.0)
        sampler.sample(context, context.decode([Row(0, [5], 0, True)])[0])
        def work():
            try:
                while True:
                    context.decode([Row(0, [5] * 60, 0, True)])
            except RuntimeError:
                pass
        if {threaded}:
            threading.Thread(target=work, daemon=True).start()
            time.sleep(0.3)
        print("done")
        """
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
