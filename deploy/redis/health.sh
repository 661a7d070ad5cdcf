#!/bin/sh
# Whether Redis answers. The password is read from the environment, where `ps` does not show it.
set -eu
REDISCLI_AUTH="$(cat "${SECRETS:-/run/secrets}/redis_monitor")"
VALKEYCLI_AUTH="$REDISCLI_AUTH"
export REDISCLI_AUTH VALKEYCLI_AUTH
answer="$(valkey-cli --user monitor --no-auth-warning ping)"
[ "$answer" = PONG ]
