from __future__ import annotations

import copy
import pickle

import pytest

import inferq
from inferq import errors
from inferq.errors import (
    DuplicateRequest,
    InferqError,
    InvalidRequest,
    QueueFull,
    RequestCancelled,
    RequestFailed,
    SettingsError,
    UnknownRequest,
)

PARENTS = {
    "SettingsError": ("InferqError", "ValueError"),
    "SchedulerUnavailable": ("InferqError",),
    "ClientClosed": ("InferqError",),
    "UnknownRequest": ("InferqError", "KeyError"),
    "QueueFull": ("InferqError",),
    "InvalidRequest": ("InferqError", "ValueError"),
    "DuplicateRequest": ("InvalidRequest",),
    "RequestTooLarge": ("InvalidRequest",),
    "RequestEnded": ("InferqError",),
    "RequestFailed": ("RequestEnded",),
    "RequestCancelled": ("RequestEnded",),
    "RequestExpired": ("RequestEnded",),
    "EngineError": ("InferqError",),
    "EngineStartError": ("EngineError",),
    "EngineStepError": ("EngineError",),
    "KvLost": ("EngineError",),
}
EXAMPLES: list[InferqError] = [
    SettingsError("scheduler_ttl=0: too small", ["scheduler_ttl"]),
    UnknownRequest("a"),
    QueueFull(2, ["c", "d"], ["a", "b"]),
    InvalidRequest("prompt", "is empty"),
    DuplicateRequest("a"),
    RequestFailed("a", "out of luck", "luck"),
    RequestCancelled("a", "it was cancelled"),
    errors.RequestTooLarge("prompt", "is too long"),
    errors.RequestExpired("a", "its time was over"),
    errors.EngineStartError("no such file"),
    errors.EngineStepError("step 5"),
    errors.KvLost("it is gone"),
    errors.ClientClosed("closed"),
    errors.SchedulerUnavailable("no redis"),
]


def all_errors() -> dict[str, type[InferqError]]:
    found: dict[str, type[InferqError]] = {}
    left = [InferqError]
    while left:
        kind = left.pop()
        found[kind.__name__] = kind
        left += [k for k in kind.__subclasses__() if k.__module__ == errors.__name__]
    return found


def test_the_tree_is_as_documented() -> None:
    found = all_errors()
    del found["InferqError"]
    assert {n: tuple(b.__name__ for b in k.__bases__) for n, k in found.items()} == PARENTS
    assert all(name in (errors.__doc__ or "") for name in PARENTS)


def test_every_error_can_be_imported_from_the_package() -> None:
    assert all(getattr(inferq, name) is kind for name, kind in all_errors().items())


def test_every_error_that_travels_has_a_code_of_its_own() -> None:
    # RequestEnded is only ever raised as one of its kinds.
    codes = [kind.code for name, kind in all_errors().items() if name != "RequestEnded"]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_an_error_survives_a_copy(error: InferqError) -> None:
    for twin in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.__dict__ == error.__dict__


def test_the_errors_name_what_they_are_about() -> None:
    assert str(UnknownRequest("r-1")) == "request_id 'r-1': no live request has this id"
    assert str(InvalidRequest("prompt", "is empty")) == "prompt: is empty"
    assert "r-1" in str(DuplicateRequest("r-1"))
    assert DuplicateRequest("r-1").field == "request_id"
    assert "[luck]" in str(RequestFailed("a", "out of luck", "luck"))


def test_a_full_queue_names_some_of_many_ids_and_holds_all() -> None:
    rejected = [f"r{n}" for n in range(9)]
    error = QueueFull(4, rejected, ["a"])
    assert str(error) == "scheduler_max_size is 4: 9 of 10 requests do not fit (r0, r1, r2, ...)"
    assert error.rejected == tuple(rejected)
    assert error.accepted == ("a",)
