"""The project's own Celery application and worker: ``celery -A shop worker``."""

from celery import Celery

app = Celery("shop", include=["shop.tasks"])
app.config_from_object("shop.settings", namespace="CELERY")
