"""Frozen episodes: a suite's splits and episodes as checksummed Parquet and JSON, for any framework to run on.

``docs/frozen_episodes.md`` documents the format column by column. Apart from the sampler because nothing here decides a
score: what is written is what the sampler drew, and what is read is checked against it.
"""

from fewrec.episodes.frozen.load import FrozenEpisodes, FrozenTask, load

__all__ = ["FrozenEpisodes", "FrozenTask", "load"]
