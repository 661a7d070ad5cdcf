"""The node: a Celery worker with an async pool, an engine, and an intake that knows its room."""
