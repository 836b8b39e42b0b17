"""Random numbers from keys: stateless, reproducible, and usable inside every transformation.

Every function takes a key and gives the same numbers for the same key, wherever it runs; `split` makes more keys.
Samples are differentiable functions of the parameters of their distributions (by reparametrisation).

Example:
    >>> from functrace import random
    >>> key = random.key(0)
    >>> noise_key, index_key = random.split(key)
    >>> random.normal(noise_key, (2, 3)).shape
    (2, 3)

Keys, `split`, `fold_in` and `bits` give the same integers as JAX's default generator (Threefry-2x32, 20 rounds).
"""

from functrace.random._continuous import *  # noqa: F403
from functrace.random._discrete import *  # noqa: F403
from functrace.random._keys import *  # noqa: F403
