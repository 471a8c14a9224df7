"""Recommending to one user: titles and a file of ratings, a learner trained or loaded, and what it advises and why."""
