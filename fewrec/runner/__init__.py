"""The runner: suite -> cells -> executed -> stored, with timings and environment apart from scores."""

import os

# Before torch is loaded: its threads then sleep while they wait instead of spinning. On a machine that others use too,
# spinning made meta-fitting `maml-mf` 15 times slower (75 s against 5 s); alone, sleeping costs about a tenth.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
