"""What every learner promises (design, contract 2), as checks that need no test framework and explain themselves.

``examine`` runs them for ``fewrec check``; ``fewrec.testing.LearnerConformance`` runs the same ones under pytest.
"""

from fewrec.conformance.bench import Bench
from fewrec.conformance.check import CHECKS, Broken, Check, Skipped
from fewrec.conformance.examine import Outcome, examine, outcome_of

__all__ = ["CHECKS", "Bench", "Broken", "Check", "Outcome", "Skipped", "examine", "outcome_of"]
