#!/bin/sh
# The tests that need a GPU, the rows of language models beside their peers, and throughput against the episodes in
# flight, all on one GPU in a few minutes. Writes one report, results/gpu/report.md; a step that fails is named there.
#
#     benchmarks/gpu.sh [folder]
set -u
cd "$(dirname "$0")/.."
folder=${1:-results/gpu}
mkdir -p "$folder"
make --no-print-directory setup || exit 1
python=".venv/bin/python -P"
if ! $python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu.sh: torch sees no CUDA device here; nvidia-smi shows whether there is one, and torch must be a build for it" >&2
    exit 1
fi

failed=""
step() { # name, log, command...
    name=$1 log=$folder/$2
    shift 2
    echo "$name ..."
    start=$(date +%s)
    "$@" >"$log" 2>&1 || failed="$failed $name;"
    echo "$name: $(($(date +%s) - start)) s" | tee -a "$folder/seconds.txt"
}

: >"$folder/seconds.txt"
step "tests on the GPU" tests.log $python -m pytest -m gpu -p no:benchmark tests
step "beside the peers" perf.log $python -m pytest -o pythonpath=benchmarks/perf benchmarks/perf/test_language_models.py \
    --device cuda --into "$folder"
step "episodes in flight" in-flight.log .venv/bin/python benchmarks/perf/in_flight.py --device cuda "$folder"

{
    echo "# fewrec on one GPU"
    echo
    $python -c '
import torch
device = torch.cuda.get_device_properties(0)
print(f"{device.name}, {device.total_memory / 2**30:.0f} GiB, torch {torch.__version__}, CUDA {torch.version.cuda}")'
    echo
    sed 's/^/- /' "$folder/seconds.txt"
    [ -z "$failed" ] || printf '\n**Failed:**%s the logs are beside this file.\n' "$failed"
    printf '\n## Tests\n\n```text\n'
    tail -n 15 "$folder/tests.log"
    printf '```\n\n## Beside the peers\n\n```text\n'
    grep -E 'times as long|^(FAILED|ERROR|SKIPPED)|passed|failed' "$folder/perf.log"
    printf '```\n\n## Episodes in flight\n\n```text\n'
    cat "$folder/in-flight.log"
    printf '```\n'
} >"$folder/report.md"
echo "$folder/report.md"
[ -z "$failed" ]
