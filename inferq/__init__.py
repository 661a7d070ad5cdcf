"""inferq: a scheduler for LLM inference that runs on a message queue."""

__version__ = "0.1.0"
