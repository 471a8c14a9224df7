"""How long ``import fewrec`` takes: every command waits for it."""

import subprocess
import sys


def seconds_to(statement: str):
    return lambda number: subprocess.run([sys.executable, "-c", statement], check=True)


def test_import_of_fewrec_beside_import_of_torch(compare):
    ours, other = seconds_to("import fewrec"), seconds_to("import torch")
    compare("import fewrec", ours, other, other_name="import torch", note="both with the start of Python itself")
