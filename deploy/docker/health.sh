#!/bin/sh
# Whether the node of this container answers a real, small request: `health.sh ROLE`. It asks as a
# producer would, with a producer's rights.
set -eu
INFERQ_REDIS__USER=producer
INFERQ_REDIS__PASSWORD_FILE="${SECRETS:-/run/secrets}/redis_producer"
export INFERQ_REDIS__USER INFERQ_REDIS__PASSWORD_FILE
exec python -m inferq.healthcheck "$1@$(python -c 'import socket; print(socket.gethostname())')" \
  --timeout "${HEALTH_TIMEOUT_S:-20}"
