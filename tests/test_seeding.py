"""Seeds and substreams: the vectorised keys are NumPy's own, and names keep streams apart."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewrec.seeding import canonical_json, digest, mix, stable_hash, substream, substream_keys


@given(seed=st.integers(0, 2**70), name=st.text(max_size=8), indices=st.lists(st.integers(0, 2**32 - 1), max_size=5))
def test_keys_are_those_of_numpys_seed_sequence(seed, name, indices):
    expected = [np.random.SeedSequence([seed, stable_hash(name), i]).generate_state(1, np.uint64)[0] for i in indices]
    assert substream_keys(seed, name, np.array(indices, np.uint64)).tolist() == [int(key) for key in expected]


def test_an_index_beyond_32_bits_is_refused():
    with pytest.raises(ValueError, match="below 2"):
        substream_keys(0, "a", np.array([2**32]))


def test_streams_of_other_names_seeds_and_indices_differ_and_the_same_agree():
    draws = {key: substream(*key).integers(0, 2**62) for key in [(0, "a", 0), (0, "b", 0), (1, "a", 0), (0, "a", 1)]}
    assert len(set(draws.values())) == 4
    assert substream(0, "a").integers(0, 2**62) == draws[0, "a", 0]


def test_hashes_do_not_depend_on_the_process_or_on_the_order_of_keys():
    code = "from fewrec.seeding import *; print(stable_hash('fewrec'), digest({'b': 1, 'a': [1.5, None]}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(stable_hash("fewrec")), digest({"a": [1.5, None], "b": 1})]
    assert canonical_json({"b": 1, "a": 2}) == '{"a":2,"b":1}'


def test_mixed_bits_are_balanced_and_change_with_every_bit_of_the_key():
    keys = np.arange(4000, dtype=np.uint64)
    bits = np.unpackbits(mix(keys, np.uint64(0)).view(np.uint8)).reshape(4000, 64)
    assert np.abs(bits.mean(0) - 0.5).max() < 0.04
    flipped = mix(keys[:, None] ^ (np.uint64(1) << np.arange(64, dtype=np.uint64)), np.uint64(7)) ^ mix(
        keys[:, None], 7
    )
    share = np.unpackbits(flipped.view(np.uint8)).mean()
    assert 0.49 < share < 0.51
