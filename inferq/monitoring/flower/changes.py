"""The error for a Flower whose insides are not as we know them."""

from __future__ import annotations

import flower
from celery.exceptions import ImproperlyConfigured


def changed(how: str) -> ImproperlyConfigured:
    """What to raise; ``how`` says what is different."""
    return ImproperlyConfigured(f"Flower {flower.__version__} is not as inferq knows it: {how}")
