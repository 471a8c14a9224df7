"""What holds for all tests: one torch thread, since the workers share the cores and small operations spin otherwise."""

import torch

torch.set_num_threads(1)
