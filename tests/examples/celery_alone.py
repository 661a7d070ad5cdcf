"""A folder with the packages of ``celery[redis]``, and nothing else."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distribution
from pathlib import Path

#: Run as ``python -I -S -c RUN FOLDER SCRIPT ...``: without the packages of this environment.
RUN = """
import runpy, sys
from importlib.util import find_spec
_, folder, *sys.argv = sys.argv
sys.path.append(folder)
assert find_spec("inferq") is None, "inferq is here"
runpy.run_path(sys.argv[0], run_name="__main__")
assert not [name for name in sys.modules if name.startswith("inferq")]
"""


def make_folder(folder: Path) -> Path:
    """Link the packages into a folder."""
    folder.mkdir()
    for found in _with_all_it_needs("celery"):
        for top in {file.parts[0] for file in distribution(found).files or ()} - {".."}:
            target = folder / top
            if not target.exists():
                target.symlink_to(Path(str(distribution(found).locate_file(top))))
    return folder


def _with_all_it_needs(name: str) -> set[str]:
    names, left = set[str](), [name]
    while left:
        found = distribution(left.pop())
        if found.metadata["Name"] not in names:
            names.add(found.metadata["Name"])
            left += _needs(found)
    return names


def _needs(found: Distribution) -> list[str]:
    # What is for another extra, or for another system, is not needed.
    stated = [
        need
        for need in found.requires or ()
        if ";" not in need or need.endswith('; extra == "redis"')
    ]
    return [re.split(r"[^A-Za-z0-9._-]", need)[0] for need in stated]
