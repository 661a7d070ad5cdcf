#!/usr/bin/env bash
# Makes the certificates of the tests anew: two authorities, servers, clients. Needs openssl.
# Nobody trusts these authorities; the keys lie here so that tests need nothing but Python.
set -euo pipefail
cd "$(dirname "$0")"
FIRST=20240101000000Z
LAST=21240101000000Z
WORK="$(mktemp -d)"
trap 'rm -rf "$WORK"' EXIT

request() { # NAME COMMON-NAME
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$2" \
    -keyout "$WORK/$1.key" -out "$WORK/$1.csr" 2>/dev/null
}

sign() { # NAME EXTENSIONS OPTIONS...
  : >"$WORK/index"
  cat >"$WORK/ca.cnf" <<EOF
[ca]
default_ca = tests
[tests]
database = $WORK/index
new_certs_dir = $WORK
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[of]
$2
EOF
  openssl ca -batch -notext -config "$WORK/ca.cnf" -extensions of -startdate "$FIRST" \
    -enddate "$LAST" -in "$WORK/$1.csr" -out "$1.pem" "${@:3}" 2>/dev/null
}

authority() { # NAME
  request "$1" "inferq tests, $1"
  sign "$1" $'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash' \
    -selfsign -keyfile "$WORK/$1.key"
}

certificate() { # NAME AUTHORITY ALTERNATIVE-NAMES
  request "$1" "$1"
  sign "$1" $"subjectAltName=$3"$'\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid' \
    -cert "$2.pem" -keyfile "$WORK/$2.key"
  cp "$WORK/$1.key" .
}

authority ca
authority other-ca
certificate server ca "DNS:localhost,IP:127.0.0.1"
certificate elsewhere ca "DNS:elsewhere.test"
certificate client ca "DNS:client.test"
certificate stranger other-ca "DNS:client.test"
