"""Checks of derivatives against numbers, for users' functions and for every rule of a primitive.

`check_grads`, `check_jvp` and `check_vjp` compare a function's derivatives with differences. `check_primitive` takes
one `Case`, a primitive with operands, and checks each of its rules against the others and against numbers;
`check_rule` does so for the rules of a custom function.
A complex value counts as two real ones throughout; the inner product is the real part of the sum of products, for
which a pullback is the transpose without conjugation.
"""

from functrace.testing.cases import Case
from functrace.testing.custom import check_rule
from functrace.testing.gradients import check_grads, check_jvp, check_vjp
from functrace.testing.numerical import RuleError, complex_step, difference
from functrace.testing.rules import check_primitive

__all__ = [
    "Case",
    "RuleError",
    "check_grads",
    "check_jvp",
    "check_primitive",
    "check_rule",
    "check_vjp",
    "complex_step",
    "difference",
]
