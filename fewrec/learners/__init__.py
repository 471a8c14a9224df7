"""Learners: the contract, the registry, one module per family."""
