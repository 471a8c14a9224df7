"""What holds for all tests: one torch thread, since the workers share the cores and small operations spin otherwise."""

import os
import signal
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of what a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--write", action="store_true", help="write committed tables that tests compare with")


@pytest.fixture(autouse=True)
def offline_ends_with_the_test():
    """``--offline`` is kept in the environment, for learners that fetch weights; the next test decides anew."""
    before = os.environ.get("FEWREC_OFFLINE")
    yield
    os.environ.pop("FEWREC_OFFLINE", None)
    if before is not None:
        os.environ["FEWREC_OFFLINE"] = before


@pytest.fixture(scope="session")
def ml_100k():
    """MovieLens-100K, fetched at first use; what needs it is skipped, with the reason, where it can't be had."""
    from fewrec.data.load import load_dataset
    from fewrec.errors import DataError

    try:
        return load_dataset("ml-100k")
    except DataError as error:
        pytest.skip(f"MovieLens-100K can't be had here: {error}")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data for tests; skips where there is none."""
    folder = Path(os.environ.get("FEWREC_TEST_DATA") or Path(__file__).parents[1] / "../shared/data").resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data for tests in {folder} (FEWREC_TEST_DATA names another folder)")
    return folder
