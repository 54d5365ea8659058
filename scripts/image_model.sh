#!/usr/bin/env bash
# Put the model (MODEL_ID, MODEL_REVISION) and the draft model, if one is named, into the image: run by the Dockerfile.
# A token, if one is needed, comes as the build secret MODELSCOPE_API_TOKEN: a file that is in no layer.
set -euo pipefail
cd "$(dirname "$0")/.."
secret=/run/secrets/MODELSCOPE_API_TOKEN
if [ -s "$secret" ]; then
    MODELSCOPE_API_TOKEN=$(<"$secret")
    export MODELSCOPE_API_TOKEN
fi
# The hubs' clients are in the gateway's environment; the bundled model is converted with the model's own libraries.
python=.venv-gateway/bin/python
model_id=${MODEL_ID:-}
case ${model_id//[[:space:]]/} in bundled:* | "") python=.venv/bin/python ;; esac # blank counts as unset: the bundled one
HOME=$(mktemp -d) # what clients write there is of no use later
export HOME
trap 'rm -rf "$HOME"' EXIT
"$python" download_model.py
