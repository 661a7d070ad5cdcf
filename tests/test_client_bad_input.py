"""Wrong requests get an error that names the field, and nothing else is disturbed."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from kombu.exceptions import EncodeError

from inferq import Client, InvalidRequest, RequestTooLarge
from tests.support import LONG_S

BAD: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {"prompt": ""}),
    ("prompt", {}),
    ("prompt", {"prompt": "a", "prompt_token_ids": [1]}),
    ("prompt", {"prompt": "a", "messages": [{"role": "user", "content": "x"}]}),
    ("prompt", {"prompt": "\ud800"}),
    ("prompt", {"prompt": b"\xff\xfe"}),
    ("prompt_token_ids", {"prompt_token_ids": []}),
    ("prompt_token_ids", {"prompt_token_ids": [1, -1]}),
    ("prompt_token_ids", {"prompt_token_ids": [1, 2.5]}),
    ("prompt_token_ids", {"prompt_token_ids": [1, True]}),
    ("prompt_token_ids", {"prompt_token_ids": [1, 1000]}),
    ("prompt_token_ids", {"prompt_token_ids": [2**40]}),
    ("prompt", {"prompt_token_ids": [1] * 4096}),
    ("prompt", {"prompt": "x" * 5000}),
    ("max_tokens", {"prompt": "a", "max_tokens": 0}),
    ("max_tokens", {"prompt": "a", "max_tokens": -1}),
    ("max_tokens", {"prompt": "a", "max_tokens": 10**12}),
    ("max_tokens", {"prompt": "a", "max_tokens": 4096}),
    ("max_tokens", {"prompt": "a", "max_tokens": 1.5}),
    ("min_tokens", {"prompt": "a", "max_tokens": 1, "min_tokens": 2}),
    ("temperature", {"prompt": "a", "temperature": math.nan}),
    ("temperature", {"prompt": "a", "temperature": -0.1}),
    ("temperature", {"prompt": "a", "temperature": math.inf}),
    ("top_p", {"prompt": "a", "top_p": 0}),
    ("top_k", {"prompt": "a", "top_k": -1}),
    ("seed", {"prompt": "a", "seed": "x"}),
    ("stop", {"prompt": "a", "stop": [""]}),
    ("priority", {"prompt": "a", "priority": 10}),
    ("deadline", {"prompt": "a", "deadline": time.time() - 1}),
    ("deadline", {"prompt": "a", "deadline": math.nan}),
    ("metadata", {"prompt": "a", "metadata": {"k": ["nested"]}}),
    ("request_id", {"prompt": "a", "request_id": ""}),
    ("request_id", {"prompt": "a", "request_id": "with space"}),
    ("temprature", {"prompt": "a", "temprature": 1}),
]


def test_every_bad_request_is_refused_by_the_name_of_its_field(client: Client) -> None:
    before = client.submit(prompt="before", max_tokens=50)
    for field, fields in BAD:
        with pytest.raises(InvalidRequest) as caught:
            client.submit(**fields)
        assert caught.value.field.split(".")[0] == field, fields
    assert len(before.result(LONG_S).token_ids) == 50
    assert client.counts().held == 0


def test_what_can_never_fit_is_told_apart(client: Client) -> None:
    with pytest.raises(RequestTooLarge, match="4096"):
        client.submit(prompt="x" * 4090, max_tokens=100)


def test_a_wrong_request_in_a_batch_refuses_the_batch(client: Client) -> None:
    with pytest.raises(InvalidRequest):
        client.submit_many([{"prompt": "a"}, {"prompt": ""}])
    assert client.counts().held == 0


@pytest.mark.parametrize(
    "fields",
    [fields for _, fields in BAD if fields and not {"deadline", "request_id"} & set(fields)],
    ids=lambda fields: str(fields)[:40],
)
def test_the_same_from_a_stock_producer_fails_that_task_only(
    client: Client, fields: dict[str, Any]
) -> None:
    try:
        sent = client.app.send_task("inferq.prefill", kwargs=fields, serializer="json")
    except (EncodeError, ValueError):
        return  # JSON itself cannot carry it
    with pytest.raises(Exception, match=r"."):
        sent.get(timeout=LONG_S)
    assert client.generate(prompt="after", max_tokens=2, timeout=LONG_S)
