"""The project's settings. Nothing of inferq is called ``settings`` or ``tasks``."""

import os

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")

CELERY_BROKER_URL = REDIS_URL
CELERY_RESULT_BACKEND = REDIS_URL
CELERY_TASK_DEFAULT_QUEUE = "shop"

#: Where requests for text go: ``{topic}.prefill``.
TEXT_QUEUE = os.environ.get("TEXT_QUEUE", "default.prefill")
