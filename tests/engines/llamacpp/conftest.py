"""A small real model, loaded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from inferq.engines.llamacpp.context import LlamaContext
from inferq.engines.llamacpp.files import find_model
from inferq.engines.llamacpp.model import LlamaModel

MakeContext = Callable[..., LlamaContext]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that run the packaged model."""
    for item in items:
        if "model" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.model)


@pytest.fixture(scope="session")
def model() -> Iterator[LlamaModel]:
    """The packaged model."""
    pytest.importorskip("xllamacpp")
    with LlamaModel(find_model(None)) as loaded:
        yield loaded


@pytest.fixture
def make_context(model: LlamaModel) -> Iterator[MakeContext]:
    """Makes small contexts of one thread and closes them at the end of the test."""
    made: list[LlamaContext] = []

    def make(n_ctx: int = 512, n_seq_max: int = 4, n_batch: int = 256) -> LlamaContext:
        made.append(
            LlamaContext(
                model, n_ctx=n_ctx, n_seq_max=n_seq_max, n_batch=n_batch, n_ubatch=256, n_threads=1
            )
        )
        return made[-1]

    yield make
    for context in made:
        context.close()


@pytest.fixture
def context(make_context: MakeContext) -> LlamaContext:
    """A context of 512 cells and 4 sequences."""
    return make_context()


@pytest.fixture
def ask(model: LlamaModel) -> Callable[[str], list[int]]:
    """Returns the prompt tokens of a question."""

    def tokens(question: str) -> list[int]:
        return model.tokenize(model.chat_prompt([("user", question)]), False, True)

    return tokens
