"""Flower with pages of a topic's nodes, queues and requests.

``celery -A inferq.monitoring.flower flower`` opens it; see ``docs/flower.md``.
"""
