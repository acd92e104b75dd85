"""Hashes of ids: the same in every process and on every machine."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types
from pandas.util import hash_array

Hashes = NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio, odd: the step of SplitMix64."""
MASK = 2**64 - 1


def mix(values: Hashes) -> Hashes:
    """Scatter 64-bit numbers [n] one to one, so that every bit depends on every bit.

    The finalizer of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014; constants by Stafford, "Better bit mixing" (2011), Mix13.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def hash_ids(ids: pd.Series) -> Hashes:
    """Hash ids, int64 or str, into 64 bits, [n]."""
    if types.is_integer_dtype(ids.dtype):
        return mix(ids.to_numpy(dtype=np.int64).view(np.uint64) + GOLDEN)
    return hash_array(ids.to_numpy(dtype=object))


def draws(users: Hashes, items: Hashes, *, seed: int) -> Hashes:
    """Draw a number for each pair of a user and an item from their hashes and the seed, [n]."""
    start = mix(mix(np.full(1, seed & MASK, dtype=np.uint64) + GOLDEN))  # like the hash of no id
    return mix(mix(start ^ users) + items)


def blocks_of(users: Hashes, *, n_blocks: int) -> NDArray[np.int32]:
    """The block of each user [n], by its hash."""
    return (users % np.uint64(n_blocks)).astype(np.int32)
