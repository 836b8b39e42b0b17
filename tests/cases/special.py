"""Cases of the special functions, over the regions where their formulas differ."""

import numpy as np

from functrace.primitives import special as p
from functrace.testing import Case

rng = np.random.default_rng(20260704)


def between(low, high, shape=(4,)):
    return rng.uniform(low, high, shape)


#: Per primitive of one operand, the intervals to sample.
_UNARY = {
    p.erf: [(-3, 3)],
    p.erfc: [(-3, 3)],
    p.erfcx: [(-3, 9), (11, 100)],
    p.erfinv: [(-0.9, 0.9)],
    p.erfcinv: [(0.1, 1.9)],
    p.ndtr: [(-3, 3)],
    p.ndtri: [(0.1, 0.9)],
    p.log_ndtr: [(-3, 3), (-50, -20)],
    p.inverse_mills: [(-3, -0.1), (0.1, 3), (-50, -20)],
    p.expit: [(-5, 5)],
    p.log_expit: [(-5, 5)],
    p.logit: [(0.1, 0.9)],
    p.gammaln: [(0.5, 5), (-0.8, -0.2)],
    p.loggamma: [(0.5, 5)],
    p.gammasgn: [(0.5, 5), (-0.8, -0.2)],
    p.gamma: [(0.5, 5), (-0.8, -0.2)],
    p.digamma: [(0.5, 5), (-0.8, -0.2)],
    p.entr: [(0.1, 3)],
    p.j0: [(-5, 5)],
    p.j1: [(-5, 5)],
    p.y0: [(0.5, 5)],
    p.y1: [(0.5, 5)],
    p.i0: [(-3, 3)],
    p.i1: [(-3, 3)],
    p.i0e: [(0.5, 20), (-20, -0.5), (51, 100), (-100, -51)],
    p.i1e: [(0.5, 20), (-20, -0.5), (51, 100), (-100, -51)],
    p.k0: [(0.5, 5)],
    p.k1: [(0.5, 5)],
    p.exp1: [(0.5, 5)],
    p.expi: [(0.5, 5), (-5, -0.5)],
    p.spence: [(0.1, 0.7), (0.78, 1.22), (1.3, 5)],
    p.si: [(-5, 5)],
    p.ci: [(0.5, 5)],
}
#: Where SciPy takes complex arguments accurately enough for a complex step.
_ANALYTIC = {
    *((f, -3) for f in (p.erf, p.erfc, p.erfcx, p.ndtr)),
    *((f, 0.5) for f in (p.gamma, p.loggamma, p.digamma)),
}

#: Primitives of several operands: operands, and the positions of those with a derivative.
_OTHERS = [
    (p.xlogy, (between(0.5, 2), between(0.5, 2)), None),
    (p.xlogy, (between(0.5, 2, (2, 3)), 1.5), None),
    (p.xlogy, (1.5, between(0.5, 2)), None),
    (p.xlog1py, (between(0.5, 2), between(-0.5, 2)), None),
    (p.rel_entr, (between(0.5, 2), between(0.5, 2)), None),
    (p.kl_div, (between(0.5, 2), between(0.5, 2)), None),
    (p.beta, (between(0.5, 3), between(0.5, 3)), None),
    (p.betaln, (between(0.5, 3), between(0.5, 3)), None),
    (p.binom, (between(4, 6), between(1.2, 2.8)), None),
    (p.poch, (between(0.5, 3), between(0.5, 2)), None),
    (p.polygamma, (np.array([0.0, 1.0, 2.0, 3.0]), between(0.5, 3)), (1,)),
    (p.polygamma, (2.0, between(0.5, 3, (2, 2))), (1,)),
    (p.zeta, (between(1.5, 4), between(0.5, 3)), (1,)),
    (p.gammainc, (between(0.5, 3), between(0.5, 3)), (1,)),
    (p.gammaincc, (between(0.5, 3), between(0.5, 3)), (1,)),
    (p.betainc, (between(0.5, 3), between(0.5, 3), between(0.2, 0.8)), (2,)),
    (p.jv, (between(0, 3), between(0.5, 5)), (1,)),
    (p.yv, (between(0, 3), between(0.5, 5)), (1,)),
    (p.iv, (between(0, 3), between(0.5, 3)), (1,)),
    (p.ive, (between(0, 3), between(0.5, 3)), (1,)),
    (p.kv, (between(0, 3), between(0.5, 3)), (1,)),
    (p.expn, (np.array([0, 1, 2, 3]), between(0.5, 3)), (1,)),
]

CASES = [
    *(
        Case(primitive, (between(low, high),), complex_step=(primitive, low) in _ANALYTIC, name=f"{low}..{high}")
        for primitive, intervals in _UNARY.items()
        for low, high in intervals
    ),
    *(Case(primitive, operands, wrt=wrt) for primitive, operands, wrt in _OTHERS),
    Case(p.riemann_zeta, (between(1.5, 4),), wrt=()),
    Case(p.erf, (np.zeros((0, 3)),), name="empty"),
    Case(p.gammaln, (np.float64(2.5),), name="scalar"),
    Case(p.digamma, (between(0.5, 5, (2, 1, 3)),), name="three axes"),
    Case(p.xlogy, (np.float64(0.5), np.float64(2.5)), name="scalars"),
    Case(p.j1, (np.zeros(2),), name="at 0"),
    Case(p.i1, (np.zeros(2),), name="at 0"),
    Case(p.si, (np.zeros(2),), name="at 0"),
    Case(p.spence, (np.ones(2),), name="at 1"),
]
