"""Each script of `examples/` runs as a user would run it, and prints the right numbers."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from functrace.demo import problems
from tests import test_examples_programs

EXAMPLES = Path(__file__).parents[1] / "examples"

# What a script must print; the others check themselves.
PRINTED = {
    "textbook.py": [
        r"= sin b +# .*textbook\.py:\d+ in f",
        r"value +11\.652",
        r"forward mode, along x1 +5\.500",
        r"reverse mode, gradient +\(5\.500, 1\.716\)",
        r"Hessian +\[\[-0\.250, 1\.000\], \[1\.000, -0\.959\]\]",
        r"df/dx1 at x1 = 1, 2, 4 +\[6\. +5\.5 +5\.25\]",
    ],
    "wine_network.py": [
        r"gradient in W1 by forward mode: +\S+ ms",
        r"gradient in W1 by reverse mode: +\S+ ms",
        r"step 300 +loss 0\.0\d+ +right (100\.0|9\d\.\d)%",
    ],
    "notebook_chain_rule.py": [
        r"sum over paths: 5\.500 1\.716",
        r"v5 = v3 - v4 = 11\.652  \|  v̇5 = v̇3 - v̇4 += 5\.5",
        r"the four Hessians equal the closed form",
    ],
    "notebook_sparse_lagrangian.py": [
        r"Hessian of the energy: 352 of 3600 entries",
        r"sparse Hessian against rev-rev: largest difference (0\.0e\+00|\S+e-1\d)",
        r"energy 11\.685 -> 9\.9527",
    ],
    "notebook_modes.py": [
        r"curve: R\^3 -> R\^200\.",
        r"split +3 \+ 3",
        r"mode='auto' gives the same Jacobians",
        r"hessian of R\^40 -> R\^1",
    ],
    "hs71.py": [
        r"rev-rev: largest difference \S+e-1\d|rev-rev: largest difference 0\.0e\+00",
        r"solution +\[1\. +4\.743 +3\.821 +1\.379\]",
        r"objective +17\.0140",
        r"product +25\.0000",
        r"\|x\|\^2 +40\.0000",
        r"trust-constr +\[1\. .*objective 17\.01401",
        r"SLSQP +\[1\. .*objective 17\.01401",
    ],
    "chained_rosenbrock.py": [r"n = 10000: Jacobian 29994 nonzeros, Hessian Structure 10000x10000 symmetric, 19999"],
    "demand.py": [r"demand \[6\.9706 0\.9371 0\.7701\]", r"the best tax is 2\.029084"],
    "double_pendulum.py": [r"differ from the textbook's by at most \S+e-1[2-6]", r"energy drifts by \S+e-09"],
    "logistic_newton.py": [r"step 5: loss 219\.0109422741, gradient \S+e-1\d", r"shortens the weights to 0\.42"],
    "optimal_control.py": [r"60x92, 240 nonzeros", r"92x92, 270 nonzeros", r"cost 3\.6506\d", r"down to -0\.2500"],
}


SCRIPTS = sorted({path.name for path in EXAMPLES.glob("*.py")} - set(test_examples_programs.PRINTED))


@pytest.mark.parametrize("name", SCRIPTS)
def test_example_runs(name, tmp_path):
    done = subprocess.run([sys.executable, EXAMPLES / name], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for pattern in PRINTED.get(name, []):
        assert re.search(pattern, done.stdout), f"{pattern} is not in\n{done.stdout}"


def test_examples_state_the_problems_of_the_demonstration(rng):
    """The scripts stand alone, so they repeat three definitions; here those are held together."""
    textbook, wine, hs71 = [
        runpy.run_path(str(EXAMPLES / name)) for name in ("textbook.py", "wine_network.py", "hs71.py")
    ]
    x = rng.uniform(1.0, 5.0, 4)
    assert textbook["f"](x[0], x[1]) == problems.textbook(x[0], x[1])
    assert hs71["objective"](x) == problems.hs71_objective(x)
    np.testing.assert_array_equal(hs71["constraints"](x), problems.hs71_constraints(x))
    W1, W2, X, y = problems.network(16)
    loaded_X, loaded_y = wine["load"]()
    np.testing.assert_array_equal(loaded_X, X)
    np.testing.assert_allclose(
        wine["loss"]({"W1": W1, "W2": W2[0]}, loaded_X, loaded_y), problems.network_loss(W1, W2, X, y), rtol=1e-12
    )
