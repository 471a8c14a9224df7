#!/bin/sh
# The tests that need a GPU, throughput against the episodes in flight, and the rows of language models beside their
# peers, all on one GPU in some minutes. Writes one report, results/gpu/report.md, anew after each step, so that a run
# that is cut off leaves what it found; a step that fails is named there.
#
#     benchmarks/gpu.sh [folder]
#     FEWREC_PYTHON=python3 benchmarks/gpu.sh     # in a container whose Python has torch and what fewrec[test,perf,lm] needs
set -u
cd "$(dirname "$0")/.."
folder=${1:-results/gpu}
mkdir -p "$folder"
if [ -z "${FEWREC_PYTHON:-}" ]; then
    make --no-print-directory setup || exit 1
    FEWREC_PYTHON=.venv/bin/python
fi
python="$FEWREC_PYTHON -P"
if ! $python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu.sh: torch sees no CUDA device here; nvidia-smi shows whether there is one, and torch must be a build for it" >&2
    exit 1
fi
card=$($python -c '
import torch
device = torch.cuda.get_device_properties(0)
print(f"{device.name}, {device.total_memory / 2**30:.0f} GiB, torch {torch.__version__}, CUDA {torch.version.cuda}")')

section() { # title, what to do with the log, log
    [ ! -e "$folder/$3" ] || printf '\n## %s\n\n```text\n%s\n```\n' "$1" "$($2 "$folder/$3")"
}

last_lines() { tail -n 15 "$1"; }

rows_alone() { grep -E 'times as long|^(FAILED|ERROR|SKIPPED)|passed|failed' "$1" | sort -u; }

report() {
    {
        printf '# fewrec on one GPU\n\n%s\n\n' "$card"
        sed 's/^/- /' "$folder/seconds.txt"
        [ -z "$failed" ] || printf '\n**Failed:**%s the logs are beside this file.\n' "$failed"
        section "Tests" last_lines tests.log
        section "Episodes in flight" cat in-flight.log
        section "Beside the peers" rows_alone perf.log
    } >"$folder/report.md"
}

failed=""
step() { # name, log, command...
    name=$1 log=$folder/$2
    shift 2
    echo "$name ..."
    start=$(date +%s)
    "$@" >"$log" 2>&1 || failed="$failed $name;"
    echo "$name: $(($(date +%s) - start)) s" | tee -a "$folder/seconds.txt"
    report
}

rm -f "$folder/tests.log" "$folder/in-flight.log" "$folder/perf.log"
: >"$folder/seconds.txt"
trap 'report; exit 130' INT TERM
step "tests on the GPU" tests.log $python -m pytest -m gpu -p no:benchmark tests
step "episodes in flight" in-flight.log "$FEWREC_PYTHON" benchmarks/perf/in_flight.py --device cuda "$folder"
step "beside the peers" perf.log $python -m pytest -o pythonpath=benchmarks/perf benchmarks/perf/test_language_models.py \
    --device cuda --into "$folder"
echo "$folder/report.md"
[ -z "$failed" ]
