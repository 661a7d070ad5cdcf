"""A project that has its own ``settings``, ``tasks`` and Celery application, as Django ones do."""
