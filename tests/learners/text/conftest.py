"""What the tests of language models share: the devices that they run on, and transformers' own attention."""

import contextlib

import pytest
import torch

from fewrec.learners.text import attention


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA here")
    return torch.device(request.param)


@pytest.fixture(scope="session")
def plainly():
    """``with plainly(model):`` the model computes attention as transformers writes it down, not as fewrec does."""

    @contextlib.contextmanager
    def switched(model):
        model.set_attn_implementation("eager")
        try:
            yield
        finally:
            model.set_attn_implementation(attention.NAME)

    return switched
