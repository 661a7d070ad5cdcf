#!/bin/sh
# Starts Redis with its configuration, and users whose passwords are secrets. Arguments go to it.
set -eu
here="$(dirname "$0")"
secrets="${SECRETS:-/run/secrets}"
topic="${INFERQ_SCHEDULER_TOPIC:-default}"
database="${INFERQ_SCHEDULER_DB:-0}"
users="${USERS_FILE:-/tmp/users.acl}"

case "$topic" in *[!A-Za-z0-9_-]* | "") echo "INFERQ_SCHEDULER_TOPIC: wrong" >&2; exit 1 ;; esac
case "$database" in *[!0-9]* | "") echo "INFERQ_SCHEDULER_DB: wrong" >&2; exit 1 ;; esac

umask 077
# Comments are no rules.
grep '^user ' "$here/users.acl" |
  sed -e "s/@topic@/$topic/g" -e "s/@database@/$database/g" >"$users"
for name in node producer stock monitor operator admin; do
  file="$secrets/redis_$name"
  if [ -s "$file" ]; then
    # What the shell reads loses the line end, as where the password is read again.
    password="$(cat "$file")"
    hash="$(printf %s "$password" | sha256sum | cut -d' ' -f1)"
    sed -i "s/@$name@/$hash/" "$users"
  else
    echo "no secret redis_$name: there is no such user" >&2
    sed -i "/^user $name /d" "$users"
  fi
done
exec "${REDIS_SERVER:-valkey-server}" "$here/redis.conf" --aclfile "$users" "$@"
