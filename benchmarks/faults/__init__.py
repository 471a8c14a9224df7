"""The fault campaign (``make faults``): real runs are killed, starved and damaged, and must end as undisturbed ones do.

``python -m faults`` runs it (``__main__``), ``world`` has what its runs are made of, ``child`` tells the phases of a
run, and each other module has some of the faults. docs/faults.md says what is promised.
"""
