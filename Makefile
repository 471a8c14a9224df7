# make bench: from a fresh clone to a leaderboard. make test: the test suite. Both make .venv first and reuse it.
.DEFAULT_GOAL := help
.PHONY: help setup bench test fuzz faults perf perf-items perf-episodes perf-cluster docs lint clean

READY := .venv/.fewrec-ready
# -P: the folder datasets/ is no package to import
PYTHON_IN_VENV := .venv/bin/python -P
WORKERS ?= 2
ARGS ?=

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## */\1 - /p' Makefile

$(READY): pyproject.toml constraints.txt scripts/setup.sh scripts/learn2learn.sh
	@PYTHON="$(PYTHON)" sh scripts/setup.sh $@

setup: $(READY)  ## make .venv with everything that was tested

bench: $(READY)  ## run the suite `quick`; the leaderboard is results/quick/leaderboard.md (options: ARGS="...")
	$(PYTHON_IN_VENV) -m fewrec run quick $(ARGS)

# One thread a worker: the workers share the cores, and more threads than cores slow all of them down.
test: $(READY)  ## run the tests (options: ARGS="...", WORKERS=2)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PYTHON_IN_VENV) -m pytest -n $(WORKERS) --dist worksteal -p no:benchmark $(ARGS)

# A target at a time, so that memory and processor seconds are its own; FEWREC_FUZZ_EXAMPLES says how many inputs each.
fuzz: $(READY)  ## read 10,000 generated files of each kind; writes results/fuzz/report.md (options: ARGS="-k suite")
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 FEWREC_FUZZ_EXAMPLES=$${FEWREC_FUZZ_EXAMPLES:-10000} \
		$(PYTHON_IN_VENV) -m pytest tests/fuzz -q -p no:benchmark -p no:cacheprovider $(ARGS)

# The path is that of the opponents; with the repository's root, the Trainer would take datasets/ for the package.
perf: $(READY)  ## measure fewrec beside its peers; writes results/perf/perf.csv and memory.csv
	$(PYTHON_IN_VENV) -m pytest -o pythonpath=benchmarks/perf benchmarks/perf $(ARGS)

perf-episodes: $(READY)  ## measure throughput against the episodes in flight; writes results/perf/in-flight-*
	.venv/bin/python benchmarks/perf/in_flight.py $(ARGS)

perf-items: $(READY)  ## measure time against the number of items; writes results/perf/items.csv, .png and .svg
	$(PYTHON_IN_VENV) benchmarks/perf/items.py $(ARGS)

perf-cluster: $(READY)  ## measure the units of docs/cluster.md's cost plan, an hour and more, and simulate it; writes results/perf/cluster-*
	.venv/bin/python benchmarks/perf/cluster_units.py $(ARGS)
	.venv/bin/python benchmarks/perf/cluster_units.py --large $(ARGS)
	.venv/bin/python benchmarks/perf/cluster_plan.py --table results/perf/cluster-units.csv

faults: $(READY)  ## kill, starve and damage real runs, half an hour and more; writes results/faults/report.md
	PYTHONPATH=benchmarks $(PYTHON_IN_VENV) -m faults $(ARGS)

docs: $(READY)  ## build the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(PYTHON_IN_VENV) -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

lint: $(READY)  ## ruff and mypy
	@$(PYTHON_IN_VENV) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt ruff mypy
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m mypy

clean:  ## remove .venv and what tools left behind (never results)
	rm -rf .venv build dist .pytest_cache .hypothesis .benchmarks .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
