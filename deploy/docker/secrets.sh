#!/bin/sh
# Makes the secrets that docker-compose.yml names, in deploy/secrets, where there are none yet.
# Files can be read by the users of the containers; nobody else gets into the folder.
set -eu
cd "$(dirname "$0")/.."
mkdir -p secrets
chmod 700 secrets
cd secrets
printf '*\n' >.gitignore
new() {
  if [ ! -s "$1" ]; then
    printf '%s%s\n' "$2" "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >"$1"
    chmod 644 "$1"
  fi
}
for user in node producer stock monitor operator admin; do new "redis_$user" ""; done
new transfer_token ""
new flower_auth "admin:"
new grafana_password ""
