#!/bin/sh
# Build learn2learn 0.2.0, a peer that fewrec is measured against, into .venv. It can't be an ordinary dependency: its sdist
# carries C files that don't compile on Python >= 3.11 (here Cython writes them anew), and it requires qpth, which doesn't build.
# Where it fails, the reason is in .venv/learn2learn.reason (one line) and all output in .venv/learn2learn.log.
set -u
cd "$(dirname "$0")/.."
log=.venv/learn2learn.log
reason=.venv/learn2learn.reason
: >"$log"
rm -f "$reason"

pip() {
    .venv/bin/python -m pip --disable-pip-version-check "$@" --constraint constraints.txt >>"$log" 2>&1
}

imports() {
    .venv/bin/python -c 'import learn2learn' >>"$log" 2>&1
}

fail() {
    echo "$* (see $log)" >"$reason"
    exit 1
}

imports && exit 0
pip install 'cython<3.1' 'setuptools<81' wheel gym scipy requests tqdm pillow || fail "its requirements can't be installed"
pip install --use-pep517 --no-deps --no-build-isolation --config-settings=--global-option=build_ext learn2learn==0.2.0 ||
    fail "it doesn't build; that needs a C compiler and Python's headers"

# The torchvision of the pinned torch comes first. Its compiled part needs the same build of torch (CPU or CUDA), and a package
# index may offer another; 0.15.2 is the last whose Python part is content without it. One that can't be imported is
# removed: transformers would import it too, and fail.
for version in 0.28.0 0.15.2; do
    pip install --no-deps "torchvision==$version" && imports && exit 0
done
.venv/bin/python -m pip uninstall --yes torchvision >>"$log" 2>&1
fail "no torchvision was found that works with this torch"
