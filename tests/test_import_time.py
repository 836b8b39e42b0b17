"""`import functrace` stays light: what is heavy or optional loads on first use. (Times are measured in `bench/`.)"""

import subprocess
import sys

import pytest

HEAVY = {
    *("numba", "llvmlite", "scipy", "matplotlib", "casadi", "cyipopt", "dask", "distributed"),
    *("jax", "torch", "autograd"),
}


@pytest.mark.parametrize("module", ["functrace", "functrace.numpy"])
def test_import_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert module.partition(".")[0] in loaded
    assert not HEAVY & set(loaded)
