"""What every test may use: a seeded generator, and Hypothesis made repeatable."""

import numpy as np
import pytest
from hypothesis import settings

# `pytest --hypothesis-profile=slow` searches further, from a new seed each time.
settings.register_profile("ci", deadline=None, derandomize=True, database=None, max_examples=50)
settings.register_profile("slow", deadline=None, max_examples=1000)
settings.load_profile("ci")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260701)
