"""Every rule of every primitive, from one table of cases; a primitive without a case fails."""

import pytest

import functrace  # noqa: F401  (registers the primitives)
from functrace.core.primitive import primitives
from functrace.testing import check_primitive
from tests.cases import all_cases

CASES = all_cases()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rules(case):
    check_primitive(case)


@pytest.mark.parametrize("primitive", list(primitives()), ids=str)
def test_primitive_has_a_case(primitive):
    assert any(case.primitive is primitive for case in CASES), f"add a Case of {primitive} to a module of tests/cases"
