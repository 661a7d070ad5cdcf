"""Headers of a task message that are ours; a stock Celery producer sends none of them."""

from __future__ import annotations

#: UNIX time at which the request was submitted.
SUBMITTED_HEADER = "inferq_submitted_at"
#: How often it was started before.
ATTEMPT_HEADER = "inferq_attempt"
#: UNIX time, of the clock of whoever reads it, at which the request's life is over.
DEADLINE_HEADER = "inferq_deadline"
#: Prompt and longest answer, tokens, so that nobody has to decode the request to judge it.
SIZE_HEADER = "inferq_size"
