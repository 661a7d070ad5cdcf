#!/bin/sh
# Flower. Who may enter is a secret, `name:password`, which no command line shows.
set -eu
FLOWER_BASIC_AUTH="$(cat "${FLOWER_AUTH_FILE:-/run/secrets/flower_auth}")"
export FLOWER_BASIC_AUTH
exec celery -A inferq.monitoring.flower flower "$@"
