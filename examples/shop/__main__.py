"""``REDIS_URL=... python -m shop "wooden chair"``, with a worker of each project running.

celery -A shop worker -n shop@%h       (in the folder that has this project)
celery -A inferq worker -n gpu0@%h     (anywhere)
"""

import sys

from shop.celery import app
from shop.tasks import describe

product = sys.argv[1] if len(sys.argv) > 1 else "wooden chair"
request_id = describe.delay(product).get(timeout=60)
answer = app.AsyncResult(request_id).get(timeout=120)
print(f"A {product} is{answer['text']}")
