"""Templates: ours beside Flower's, and Flower's navigation with our entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tornado import template

from inferq.monitoring.flower.changes import changed

_FOLDER = Path(__file__).parent / "templates"
_NAVBAR = "navbar.html"
_ENTRIES = "inferq_navbar.html"
#: The end of the list of pages, after which come theme, documentation and logout.
_END = "</ul>"
_LAST = "reverse_url('broker')"


class Loader(template.Loader):
    """Finds a template among ours first, then among Flower's.

    Raises:
        ImproperlyConfigured: Flower's navigation is not as it was.
    """

    def __init__(self, root_directory: str, **kwargs: Any) -> None:
        super().__init__(root_directory, **kwargs)
        self._navbar = with_entries((Path(self.root) / _NAVBAR).read_text(encoding="utf-8"))

    def _create_template(self, name: str) -> template.Template:
        if name == _NAVBAR:
            return template.Template(self._navbar, name=name, loader=self)
        own = _FOLDER / name
        if own.parent == _FOLDER and own.is_file():
            return template.Template(own.read_bytes(), name=name, loader=self)
        return super()._create_template(name)


def with_entries(navbar: str) -> str:
    """Flower's navigation, with our pages after its own.

    Raises:
        ImproperlyConfigured: there is no place for them.
    """
    before, last, rest = navbar.partition(_LAST)
    entry, end, after = rest.partition(_END)
    if not last or not end:
        raise changed("its navigation has no list of pages that ends with the broker")
    entries = (_FOLDER / _ENTRIES).read_text(encoding="utf-8")
    return f"{before}{last}{entry}{entries}{end}{after}"
