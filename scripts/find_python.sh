#!/usr/bin/env bash
# Print the interpreter to make the virtual environment with: the first that runs, fits the pinned lists (CPython 3.11 or
# 3.12), has venv and pip, and can host Triton's Python backend. Exit 1, with every candidate's reason, if there is none.
#
#   find_python.sh [PYTHON]     PYTHON, if given, is the only candidate
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${1:-}" ]; then candidates=("$1"); else candidates=(python3 python3.12 python3.11); fi
trial=$(mktemp -d)
trap 'rm -rf "$trial"' EXIT

reason_against() { # prints why a candidate cannot be used, or nothing
    local version
    # A version manager's stub may be on PATH and yet run nothing.
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || {
        echo "not available"
        return
    }
    case $version in
    3.11 | 3.12) ;;
    *) echo "is Python $version; the pinned packages need 3.11 or 3.12" && return ;;
    esac
    "$1" -c 'import ensurepip, venv' 2>/dev/null || {
        echo "lacks venv or ensurepip: install python$version-venv"
        return
    }
    # Asked from inside a virtual environment, as that is where the service will run.
    rm -rf "$trial/venv"
    "$1" -m venv --without-pip "$trial/venv" >/dev/null 2>&1 || { echo "cannot make a virtual environment" && return; }
    "$trial/venv/bin/python" -m runtime check-interpreter >"$trial/answer" 2>&1 || tail -n 1 "$trial/answer"
}

for candidate in "${candidates[@]}"; do
    reason=$(reason_against "$candidate")
    if [ -z "$reason" ]; then
        "$candidate" -c 'import sys; print(sys.executable)'
        exit 0
    fi
    reasons+=("  $candidate: $reason")
done
{
    echo "No usable Python found. Install CPython 3.11 or 3.12 with its shared library, or name one: make PYTHON=/path/to/python3"
    printf '%s\n' "${reasons[@]}"
} >&2
exit 1
