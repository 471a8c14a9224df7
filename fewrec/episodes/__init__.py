"""Episodes: splitting into states, and the sampler of N-user K-shot tasks."""
