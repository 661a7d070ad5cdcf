#!/bin/sh
# A node: `node.sh ROLE [options of celery worker]`. Settings come from the environment.
set -eu
role="$1"
shift
if [ -n "${INFERQ_TRANSFER__LISTEN:-}" ] && [ -z "${INFERQ_TRANSFER__ADVERTISE:-}" ]; then
  # The address of this container, not of its service: there may be several.
  code='import socket; print(socket.gethostbyname(socket.gethostname()))'
  INFERQ_TRANSFER__ADVERTISE="$(python -c "$code")"
  export INFERQ_TRANSFER__ADVERTISE
fi
exec celery -A inferq worker --hostname "$role@%h" --role "$role" --loglevel INFO "$@"
