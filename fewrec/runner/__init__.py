"""The runner: suite -> cells -> executed -> stored, with timings and environment apart from scores."""

import os

# Before torch is loaded: its threads then sleep while they wait instead of spinning. Meta-fitting `maml-mf` on 2 cores:
# beside another two-thread torch process 8.5 s sleeping, 55 s spinning; alone 6.5 s sleeping, 5.1 s spinning (medians).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
