"""The project's tasks. They run on its own workers; the text is made by inferq's nodes."""

from celery import Task, shared_task

from shop import settings


@shared_task(bind=True)
def describe(self: Task, product: str) -> str:
    """Ask for a description, and have it stored when it is there."""
    request = self.app.signature(
        "inferq.prefill",
        kwargs={"prompt": f"A {product} is", "max_tokens": 24},
        queue=settings.TEXT_QUEUE,
        link=store.s(product).set(queue=settings.CELERY_TASK_DEFAULT_QUEUE),
    )
    return request.apply_async().id


@shared_task
def store(answer: dict, product: str) -> str:
    """Called by Celery with inferq's result. A real project would write to its database."""
    return f"{product}: {len(answer['token_ids'])} tokens ({answer['finish_reason']})"


@shared_task
def longest(answers: list[dict], product: str) -> str:
    """Called by Celery when all of several requests have ended, as the body of a chord."""
    best = max(answers, key=lambda answer: len(answer["token_ids"]))
    return store(best, product)
