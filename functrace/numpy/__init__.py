"""NumPy's functions, traceable; outside any transformation they are NumPy's own."""

from __future__ import annotations

from functrace.numpy import fft, linalg  # noqa: F401
from functrace.numpy._methods import install_methods
from functrace.numpy._operators import install_operators
from functrace.numpy._protocols import *  # noqa: F403
from functrace.numpy.calculus import *  # noqa: F403
from functrace.numpy.composed import *  # noqa: F403
from functrace.numpy.contraction import *  # noqa: F403
from functrace.numpy.creation import *  # noqa: F403
from functrace.numpy.diagonals import *  # noqa: F403
from functrace.numpy.indexing import *  # noqa: F403
from functrace.numpy.joining import *  # noqa: F403
from functrace.numpy.mapping import *  # noqa: F403
from functrace.numpy.padding import *  # noqa: F403
from functrace.numpy.plain import *  # noqa: F403
from functrace.numpy.polynomials import *  # noqa: F403
from functrace.numpy.quantiles import *  # noqa: F403
from functrace.numpy.reductions import *  # noqa: F403
from functrace.numpy.selection import *  # noqa: F403
from functrace.numpy.shape import *  # noqa: F403
from functrace.numpy.sorting import *  # noqa: F403
from functrace.numpy.statistics import *  # noqa: F403
from functrace.numpy.ufuncs import *  # noqa: F403

install_methods()
install_operators()
del install_methods, install_operators
