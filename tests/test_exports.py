from __future__ import annotations

import re
from types import ModuleType

import inferq


def test_all_is_exactly_the_public_names_of_the_package() -> None:
    public = {
        name
        for name, value in vars(inferq).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(inferq.__all__) == public | {"__version__"}


def test_all_is_sorted_and_says_nothing_twice() -> None:
    assert inferq.__all__ == sorted(set(inferq.__all__))


def test_every_public_name_is_documented() -> None:
    assert all(getattr(inferq, name).__doc__ for name in inferq.__all__)


def test_modules_of_the_package_are_no_others_than_its_own() -> None:
    modules = [v.__name__ for v in vars(inferq).values() if isinstance(v, ModuleType)]
    assert all(name.startswith("inferq.") for name in modules)


def test_the_version_is_a_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?", inferq.__version__)
