"""Large workspaces are kept from call to call: no page faults, a bound, and nobody else's memory."""

import sys
import threading

import numpy as np
import pytest

import functrace as ft
from functrace.backend import dispatcher
from functrace.backend.dispatch_workspaces import KEPT_PLACES
from functrace.backend.dispatcher import native_refusal, release_workspaces

pytestmark = pytest.mark.skipif(native_refusal() is not None, reason="the portable dispatcher keeps nothing")

RNG = np.random.default_rng(3)


def of_workspace(n):
    """A jitted function with a workspace of an n x n matrix or more, which it fills and reads."""

    def twice(x, shift):
        matrix = np.outer(x, x) + shift
        return matrix @ (matrix @ x)

    run = ft.jit(twice)
    x = RNG.normal(size=n)
    run(x, 0.0)
    assert run.lower(x, 0.0)._program.executable().kernel.workspace >= 8 * n * n
    return run, x


def expected(x, shift):
    matrix = np.outer(x, x) + shift
    return matrix @ (matrix @ x)


def test_workspaces_are_kept_and_let_go():
    run, x = of_workspace(600)
    release_workspaces()
    run(x, 1.0)
    assert release_workspaces() >= 8 * 600 * 600
    assert release_workspaces() == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts page faults")
def test_later_calls_touch_no_new_pages():
    resource = pytest.importorskip("resource")
    run, x = of_workspace(2500)  # 50 MB or more
    for _ in range(3):
        run(x, 1.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        run(x, 1.0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 4 * 2500
    release_workspaces()


def test_what_is_left_in_a_workspace_does_not_matter():
    functions = [of_workspace(n) for n in (380, 400, 700, 1000)]
    for k in RNG.integers(4, size=30):
        run, x = functions[k]
        shift = float(k)
        np.testing.assert_allclose(run(x, shift), expected(x, shift), rtol=1e-9)


def test_calls_within_calls_and_threads_have_their_own():
    inner, x = of_workspace(400)

    def outside(v):
        return np.asarray(inner(v, 2.0))

    def both(x):
        large = np.outer(x, x) + 1.0
        large = large + (large @ x)[:, None]
        seen = ft.pure_callback(outside, ft.ShapeDtypeStruct(x.shape, x.dtype), x)
        return large @ seen

    nested = ft.jit(both)
    wanted = both(x)
    wrong = []

    def work():
        for _ in range(5):
            if not np.allclose(nested(x), wanted, rtol=1e-9):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_more_is_kept_than_allowed():
    release_workspaces()
    functions = [of_workspace(400 + 100 * k) for k in range(2 * KEPT_PLACES)]
    for run, x in functions:
        run(x, 1.0)
    for run, x in functions[::-1]:
        run(x, 1.0)
    kept = release_workspaces()
    assert 0 < kept <= dispatcher._workspace_limit()
    assert 2**26 <= dispatcher._workspace_limit() <= 2**30
