# Sourced by the other scripts: the virtual environment in .venv, made and kept current. Holds no step of its own.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"

# ensure_environment EXTRAS [OPTIONS]: .venv holds Dockyard and the extras, at the versions of constraints.txt.
# Returns at once when neither pyproject.toml, constraints.txt nor the Python has changed since the last time; else the
# options go to pip.
ensure_environment() {
    local extras=$1
    shift
    if ! "$venv/bin/python" -c '' 2>/dev/null; then
        local python
        python=$(find_python)
        "$python" -m venv --clear "$venv"
    fi
    local state stamp
    state=$(cat "$root/pyproject.toml" "$root/constraints.txt" "$venv/pyvenv.cfg" | sha256sum)
    for stamp in "$venv/.installed-dev" "$venv/.installed-$extras"; do # dev holds all the others
        if [[ "$(cat "$stamp" 2>/dev/null)" == "$state" ]]; then
            return
        fi
    done
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" \
        --constraint "$root/constraints.txt" --editable "$root[$extras]"
    echo "$state" >"$venv/.installed-$extras"
}

# ensure_vllm: .cache/engines/vllm holds vLLM, made by the command that users make theirs with, and anew when its versions
# or the Python change. Fails where it cannot be had.
ensure_vllm() {
    local state stamp="$root/.cache/engines/vllm.made"
    state=$(cat "$root/src/dockyard/engines/"vllm.{txt,constraints,remove} "$venv/pyvenv.cfg" | sha256sum)
    if [[ "$(cat "$stamp" 2>/dev/null)" == "$state" && -x "$root/.cache/engines/vllm/bin/python" ]]; then
        return
    fi
    rm -f "$stamp"
    "$venv/bin/dockyard" engines install vllm --data-dir "$root/.cache" || return
    echo "$state" >"$stamp"
}

# find_python: prints the first Python that is 3.11 or newer and can make virtual environments; PYTHON may name it.
find_python() {
    local candidate too_bare=""
    for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate"
            return
        fi
        too_bare=$candidate
    done
    if [[ -n "$too_bare" ]]; then
        echo "$too_bare has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2
    else
        echo "Dockyard needs Python 3.11 or newer; install one, or name it: PYTHON=/path/to/python $0" >&2
    fi
    return 1
}

# step WORDS…: says what comes next. took: says how long it took.
step() {
    step_began=$(date +%s.%N)
    echo "── $*"
}

took() {
    awk -v began="$step_began" -v ended="$(date +%s.%N)" 'BEGIN { printf "   %.1f s\n", ended - began }'
}
