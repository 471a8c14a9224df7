"""The protocol refuses conditions that its state has no use for, and hashes only the fields that count."""

import pytest
from pydantic import ValidationError

from fewrec.episodes.protocol import Protocol


def test_item_shares_count_in_the_unseen_item_states_alone():
    assert "item_shares" not in Protocol(state="user-cold", k_max=5).canonical()
    assert Protocol(state="both-cold", k_max=5).canonical()["item_shares"] == [0.7, 0.1, 0.2]


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "user-cold", "item_shots": 3},
        {"state": "warm", "support_items": "unseen"},
        {"state": "user-cold", "user_shares": (0.5, 0.5, 0.5)},
        {"state": "user-cold", "user_shares": (0.0, 0.5, 0.5)},
        {"state": "lukewarm"},
        {"state": "user-cold", "k_max": -1},
        {"state": "user-cold", "shuffle": True},
    ],
)
def test_what_makes_no_sense_is_refused(fields):
    with pytest.raises(ValidationError):
        Protocol(**{"k_max": 5, **fields})
