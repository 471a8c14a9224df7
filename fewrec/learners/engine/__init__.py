"""The engine of the meta-learners: many tasks adapted at once, each with its own copy of what adapts.

``tasks`` holds padded batches of tasks, ``inner`` adapts an ordinary ``nn.Module`` to each of them by gradient,
``meta`` is the outer loop and the base class of learners that are meta-trained on episodes.
"""
