"""The command line: ``inferq ...``, and the same as sub-commands of ``celery -A inferq``."""
