"""Control flow with JAX's names and semantics: loops, choices and solves that stay what they are when traced."""

from functrace.lax.branches import cond as cond
from functrace.lax.branches import select as select
from functrace.lax.branches import select_n as select_n
from functrace.lax.branches import switch as switch
from functrace.lax.elementwise import *  # noqa: F403
from functrace.lax.loops import fori_loop as fori_loop
from functrace.lax.loops import map as map
from functrace.lax.loops import scan as scan
from functrace.lax.loops import while_loop as while_loop
from functrace.lax.prefixes import *  # noqa: F403
from functrace.lax.slicing import *  # noqa: F403
from functrace.lax.solves import custom_linear_solve as custom_linear_solve
from functrace.lax.solves import custom_root as custom_root
from functrace.transforms import stop_gradient as stop_gradient
