#!/bin/sh
# Make or renew .venv with everything that was tested. Called by make; $1 is the stamp, written when all of it is in place.
set -eu
cd "$(dirname "$0")/.."
ready=$1
started=.venv/.fewrec-started

fail() {
    echo "set-up: $*" >&2
    exit 1
}

find_python() {
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        # Run it: a name on the path may be a launcher of a version manager with nothing behind it.
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
}

# The mark stands while a set-up runs: where one was cut off, packages may be half unpacked, so that one starts again.
if [ -e "$started" ]; then
    echo "set-up: .venv was left unfinished; making it anew"
    rm -rf .venv
fi
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    [ ! -e .venv ] || fail ".venv has no working pip; remove it and try again"
    python=$(find_python)
    [ -n "$python" ] || fail "no ${PYTHON:-python3} >= 3.11 on the path; install one, or name it: make PYTHON=/path/to/python3"
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        fail "$python has no venv module; install it (Debian, Ubuntu: apt install python3-venv)"
    mkdir .venv
    touch "$started"
    "$python" -m venv .venv
fi
touch "$started"
rm -f "$ready"

echo "set-up: installing into .venv (some minutes the first time)"
pip() {
    .venv/bin/python -m pip --disable-pip-version-check "$@"
}
if [ -t 1 ]; then quiet=; else quiet=-qq; fi # in a terminal, pip's progress bars are worth seeing
pip install $quiet --constraint constraints.txt hatchling editables
pip install $quiet --constraint constraints.txt --no-build-isolation --editable '.[lm,test,perf,report,tune,tensorboard,wandb,mlflow,ray,docs]'
sh scripts/learn2learn.sh || echo "set-up: going on without learn2learn: $(cat .venv/learn2learn.reason)"
touch "$ready"
rm -f "$started"
echo "set-up: done"
