"""The examples that are whole programs: each runs as a user would run it, checks itself and prints what it should."""

import itertools
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NESTINGS = list(itertools.product(("forward", "reverse"), repeat=2))
SLOW = [pytest.param(*nesting, marks=pytest.mark.slow) for nesting in NESTINGS]

PRINTED = {
    "saddle_point.py": [
        r"separable: the saddle point is \[0\. 0\. 0\. 0\.\]",
        r"coupled: the saddle point is \[-0\.137813 +0\.094582 -0\.024995 +0\.039588\]",
        r"(?s)(largest difference between the nestings: (0\.0e\+00|\S+e-1\d).*){2}",
    ],
    "charged_particle.py": [
        r"at w = 0: value 3\.199079003, slope -19\.404636450, curvature -71\.092469251",
        r"(?s)(over (forward|reverse): w = 0\.207199460126, .*){4}",
    ],
    "rnn.py": [r"gradient of rnn_unrolled +\S+ ms", r"step 150 +loss 0\.0[01]\d+"],
    "lstm.py": [r"steps 150 to 199 +mean loss 0\.0[01]\d+"],
    "odeint.py": [
        r"dopri5 at tolerance 1e-08, to SciPy's +\S+e-0[789]",
        r"dopri5, reverse mode to forward mode +\S+e-1\d",
    ],
    "ode_fit.py": [
        r"L-BFGS: \d+ gradients, differs by \S+e-\d+",
        r"birth +0\.5\d+ +true 0\.55 +standard deviation 1\.8 %",
    ],
    "taylor_ode.py": [r"order 20, +\d+ steps +energy drifts by \S+e-1[2-6]", r"lands \S+e-1\d from SciPy's"],
    "fixed_point_layer.py": [
        r"by_root +off finite differences: first order \de-1\d, second \de-0[89]",
        r"right: (9\d\.\d|100\.0)%",
    ],
}


@pytest.mark.parametrize("name", PRINTED)
def test_example_runs(name, tmp_path):
    done = subprocess.run([sys.executable, EXAMPLES / name], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for pattern in PRINTED[name]:
        assert re.search(pattern, done.stdout), f"{pattern} is not in\n{done.stdout}"


def load(name):
    return runpy.run_path(str(EXAMPLES / name))


@pytest.mark.parametrize(("outer", "inner"), [*SLOW[:-1], NESTINGS[-1]])
def test_published_minimum_of_the_charged_particle(outer, inner):
    """The published descent, from its first rate of 1e-5, stops where every published implementation stops."""
    program = load("charged_particle.py")
    gradient = program["GRADIENT"]
    w = program["argmin"](lambda w: program["miss"](w, gradient[inner]), 0.0, gradient[outer])
    np.testing.assert_allclose(w, 0.20719187464861194, rtol=1e-12)


@pytest.mark.parametrize(("outer", "inner"), SLOW)
def test_published_saddle_point(outer, inner):
    program = load("saddle_point.py")
    gradient = program["GRADIENT"]
    point = program["saddle_point"](program["separable"], gradient[outer], gradient[inner], rate=1e-5)
    np.testing.assert_allclose(point, 8.2463248261403561e-06, rtol=1e-9)
