"""What every test may use: a seeded generator, and Hypothesis made repeatable."""

import os

import numpy as np
import pytest
from hypothesis import settings

# `pytest --hypothesis-profile=slow` searches further, from a new seed each time.
settings.register_profile("ci", deadline=None, derandomize=True, database=None, max_examples=50)
settings.register_profile("slow", deadline=None, max_examples=1000)
settings.load_profile("ci")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Compiled code is kept in a directory of this run, not in the user's; subprocesses find it too."""
    before = os.environ.get("FUNCTRACE_CACHE_DIR")
    os.environ["FUNCTRACE_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache") / "functrace")
    yield
    if before is None:
        del os.environ["FUNCTRACE_CACHE_DIR"]
    else:
        os.environ["FUNCTRACE_CACHE_DIR"] = before


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260701)
