#!/usr/bin/env bash
# Make the test environment, then format, lint, types, import rules, tests. Arguments go to pytest (-n 0: one by one).
#   SCITQ_VENV   where the environment is (default: .venv-test in the clone)
#   PYTHON       which Python makes it (default: the first that is 3.11 or later)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${SCITQ_VENV:-$PWD/.venv-test}

step() { printf '\n== %s\n' "$*" >&2; }

install_debian_packages() {
    command -v dpkg-query >/dev/null || return 0
    local wanted=() name
    while read -r name; do
        case $name in '' | '#'*) continue ;; esac
        dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || wanted+=("$name")
    done <tests/debian-packages.txt
    [ ${#wanted[@]} -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        step "Debian packages: ${wanted[*]}"
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" >&2 </dev/null
    else
        echo "Some tests may need Debian packages that are not installed, and this user may not install them: ${wanted[*]}" >&2
    fi
}

# Azure's storage emulator, for tests/fetch. Node is not in the list of packages: one that was installed from elsewhere brings
# an npm of its own, with which Debian's npm cannot be installed.
install_azurite() {
    [ ! -x "$venv/node_modules/.bin/azurite-blob" ] || return 0
    if ! command -v npm >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        step "Debian packages: nodejs npm"
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >&2 </dev/null
    fi
    if ! command -v npm >/dev/null; then
        echo "The tests of Azure storage need npm, which is not installed, and this user may not install it." >&2
        return 0
    fi
    step "installing azurite in $venv"
    npm install --prefix "$venv" --no-audit --no-fund --silent 'azurite@^3' >&2 </dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.11 python3.12 python3.13 python3.14 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    echo "scitq needs Python 3.11 or later; none is on PATH. Set PYTHON=/path/to/python3.11." >&2
    return 1
}

make_environment() {
    local stamp
    [ -x "$venv/bin/python" ] || "$(find_python)" -m venv "$venv"
    # Installing again costs seconds; what decides about it is pyproject.toml and where the clone is.
    stamp="$PWD $(cksum <pyproject.toml)"
    if [ "$(cat "$venv/.scitq-installed" 2>/dev/null || true)" != "$stamp" ]; then
        step "installing scitq[test] in $venv"
        "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --editable '.[test]' >&2 </dev/null
        printf '%s' "$stamp" >"$venv/.scitq-installed"
    fi
}

install_debian_packages
make_environment
install_azurite
export PATH="$venv/bin:$PATH"

step "format";        ruff format --check .
step "lint";          ruff check .
step "types";         mypy
if [ -d scitq/remote/agent ]; then
    step "types of what travels, as Python 3.10"
    mypy --python-version 3.10 --follow-imports=silent scitq/remote/agent scitq/fetch scitq/errors.py
fi
step "import rules";  lint-imports
step "live tests, deselected here (pytest -m live runs them)"
# Exit code 5 says that there is none.
live=$(pytest --collect-only -q -m live -p no:cacheprovider 2>&1) || [ $? -eq 5 ] || { printf '%s\n' "$live"; exit 1; }
printf '%s\n' "$live" | grep -F '::' || echo "none yet"
step "tests"
# They wait more than they compute: one more at a time than there are processors.
exec pytest -n "$(($(getconf _NPROCESSORS_ONLN) + 1))" --dist worksteal "$@"
