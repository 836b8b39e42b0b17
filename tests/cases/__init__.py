"""The operands at which every primitive is checked: one module per family, each with a list `CASES`."""

import importlib
import pkgutil

from functrace.core.primitive import Primitive
from functrace.testing import Case


def all_cases() -> list[Case]:
    """The cases of all modules of this package."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [case for name in names for case in importlib.import_module(f"{__name__}.{name}").CASES]


def own_primitives() -> list[Primitive]:
    """The primitives of the package itself, without those that tests register."""
    return list(dict.fromkeys(case.primitive for case in all_cases()))
