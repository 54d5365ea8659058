#!/usr/bin/env bash
# Fetch the model if it is not there, then start the service in the foreground: `make serve`.
set -euo pipefail
cd "$(dirname "$0")/.."

is_set() { [[ ${!1:-} =~ [^[:space:]] ]]; } # blank counts as unset

# A folder given without a model's name is served as it is; a draft model with a name is fetched for it all the same.
if is_set MODEL_ID || ! is_set MODEL_DIR || is_set SPEC_DRAFT_MODEL_ID; then
    .venv/bin/python download_model.py >/dev/null # prints the folder, which the launcher works out in the same way
fi
exec .venv/bin/python -m runtime serve
