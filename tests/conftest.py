"""What holds for all tests: one torch thread, since the workers share the cores and small operations spin otherwise."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ml_100k():
    """MovieLens-100K, fetched at first use; what needs it is skipped, with the reason, where it can't be had."""
    from fewrec.data.load import load_dataset
    from fewrec.errors import DataError

    try:
        return load_dataset("ml-100k")
    except DataError as error:
        pytest.skip(f"MovieLens-100K can't be had here: {error}")
