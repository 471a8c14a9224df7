"""The runner: suite -> cells -> executed -> stored, with timings and environment apart from scores."""
