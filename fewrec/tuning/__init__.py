"""Tuning: options chosen on meta-validation, with the same budget, method and search rule for every learner.

Apart from the runner because it must not reach meta-test: what scores a trial is given splits without it.
"""
