"""A jaxpr as a plain Python function: the quickest way to run it many times on NumPy values.

The function's source consists of identifiers made here; primitives, parameters and constants are bound, not written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.ir import Atom, Jaxpr, Var
from functrace.core.primitive import Primitive

__all__ = ["evaluate_plain", "python_function"]


def python_function(jaxpr: Jaxpr) -> Callable[..., list[Any]]:
    """A function of constvars and invars that calls each `impl` in turn and gives the list of outputs.

    Operands must be plain values. It is made once per jaxpr.
    """
    if jaxpr.function is None:
        jaxpr.function = _generate(jaxpr)
    return jaxpr.function


def evaluate_plain(primitive: Primitive, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """One operation on plain values, warnings of NumPy's left to the run itself."""
    with np.errstate(all="ignore"):
        return primitive.impl(*values, **params)


def _generate(jaxpr: Jaxpr) -> Callable[..., list[Any]]:
    names: dict[Var, str] = {}
    bound: dict[str, Any] = {}

    def name(var: Var) -> str:
        return names.setdefault(var, f"v{len(names)}")

    def operand(atom: Atom) -> str:
        if isinstance(atom, Var):
            return name(atom)
        constant = f"c{len(bound)}"
        bound[constant] = atom.val
        return constant

    parameters = ", ".join(name(v) for v in (*jaxpr.constvars, *jaxpr.invars))
    lines = []
    for eqn, dying in zip(jaxpr.eqns, jaxpr.last_uses, strict=True):
        function, params = f"f{len(bound)}", f"p{len(bound)}"
        bound[function] = eqn.primitive.impl
        operands = ", ".join(map(operand, eqn.invars))
        if eqn.params:
            bound[params] = eqn.params
            operands += f"{', ' if operands else ''}**{params}"
        targets = ", ".join(map(name, eqn.outvars)) or "_"
        comma = "," if eqn.primitive.multiple and eqn.outvars else ""
        lines.append(f"{targets}{comma} = {function}({operands})")
        freed = [name(v) for v in dying if v in names]
        if freed:
            lines.append(f"del {', '.join(freed)}")
    lines.append(f"return [{', '.join(map(operand, jaxpr.outvars))}]")
    exec("def run(" + parameters + "):\n    " + "\n    ".join(lines), bound)
    return bound["run"]
