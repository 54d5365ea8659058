#!/usr/bin/env bash
# Make .venv-web, the environment of the web page, and install its pinned packages (skipped when done).
#
#   web_environment.sh PYTHON [LIST …]     PYTHON: the interpreter to make it with, empty for the one that is found
#                                          LIST: further lists in requirements/, such as web-test
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(scripts/find_python.sh "$1")
lists=(web "${@:2}")
exec {lock}>.venv-web.lock
flock "$lock"

# `make webui` after `make test-web` finds more than it needs, and that is well.
wanted() { { "$python" --version && sha256sum "requirements/$1.txt"; } | sha256sum; }
done_with() { [ "$(cat ".venv-web/installed-$1" 2>/dev/null)" = "$(wanted "$1")" ]; }

if ! done_with web; then
    echo "Making .venv-web with $python …"
    rm -rf .venv-web
    "$python" -m venv .venv-web
fi
for list in "${lists[@]}"; do
    if ! done_with "$list"; then
        echo "Installing requirements/$list.txt into .venv-web …"
        PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore .venv-web/bin/python -m pip install -qq --no-input \
            --no-compile --no-deps --requirement "requirements/$list.txt"
        wanted "$list" >".venv-web/installed-$list"
    fi
done
