"""The benchmark script: ``python benchmarks/run.py quick`` does what ``fewrec run quick`` does, from a checkout."""

import sys

from fewrec.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]], prog_name="fewrec")
