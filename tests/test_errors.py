"""What would lose a derivative raises, naming the user's line and the remedy; one example of every error class."""

import array
import math
import statistics
import struct
from unittest import mock

import numpy as np
import pytest
import scipy.sparse

import functrace
import functrace.numpy as fnp
from functrace import errors, lax, optimize, sparse, tree
from functrace.core.ir import ClosedJaxpr
from functrace.core.primitive import Primitive
from functrace.errors import ConversionError, FunctraceError, InputError

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of numpy.matrix

X = np.array([1.0, 2.0, 3.0])
TRANSFORMS = {
    "grad": lambda f: functrace.grad(lambda x: (f(x[0], x), x[0])[1])(X),
    "jvp": lambda f: functrace.jvp(lambda x: (f(x[0], x), x)[1], (X,), (X,)),
    "vmap": lambda f: functrace.vmap(lambda x: (f(x[0], x), x)[1])(np.stack([X, X])),
    "make_jaxpr": lambda f: functrace.make_jaxpr(lambda x: (f(x[0], x), x)[1])(X),
    "grad of grad": lambda f: functrace.grad(lambda x: functrace.grad(lambda y: (f(y[0], y), y[0])[1])(x)[0])(X),
}


def assign(buffer, key, value):
    buffer[key] = value


#: What NumPy, Python and others do to an argument that cannot be traced, given a traced scalar x and vector v.
CONVERSIONS = {
    "array of scalars": lambda x, v: np.array([x, x]),
    "array of scalars and numbers": lambda x, v: np.array([[x, 1.0], [2.0, x]]),
    "array of vectors": lambda x, v: np.array([v, v]),
    "array of a scalar": lambda x, v: np.array(x),
    "array of a vector": lambda x, v: np.array(v),
    "array of objects": lambda x, v: np.array([x, x], dtype=object),
    "array of vector objects": lambda x, v: np.array([v, [x]], dtype=object),
    "array with None": lambda x, v: np.array([None, x]),
    "asarray": lambda x, v: np.asarray(x),
    "asarray of a list": lambda x, v: np.asarray([[v, v]]),
    "asanyarray": lambda x, v: np.asanyarray(v),
    "ascontiguousarray": lambda x, v: np.ascontiguousarray(v),
    "fromiter": lambda x, v: np.fromiter([x, x], float),
    "element": lambda x, v: assign(np.zeros(3), 0, x),
    "element of float32": lambda x, v: assign(np.zeros(3, np.float32), 0, x),
    "element of complex": lambda x, v: assign(np.zeros(3, complex), 0, x),
    "element of int": lambda x, v: assign(np.zeros(3, int), 0, x),
    "element in a matrix": lambda x, v: assign(np.zeros((2, 2)), (0, 1), x),
    "slice": lambda x, v: assign(np.zeros(3), slice(None), v),
    "slice from a scalar": lambda x, v: assign(np.zeros(3), slice(1, 2), x),
    "row": lambda x, v: assign(np.zeros((2, 3)), 0, v),
    "row from a list": lambda x, v: assign(np.zeros((3, 3)), 0, [x, x, x]),
    "ellipsis": lambda x, v: assign(np.zeros(3), ..., x),
    "mask": lambda x, v: assign(np.zeros(3), np.array([True, False, True]), x),
    "field": lambda x, v: assign(np.zeros(3, [("a", float)]), 0, (x,)),
    "slice of objects": lambda x, v: assign(np.zeros(3, object), slice(None), v),
    "fill": lambda x, v: np.zeros(3).fill(x),
    "put": lambda x, v: np.zeros(3).put([0], x),
    "math.sin": lambda x, v: math.sin(x),
    "math.sqrt": lambda x, v: math.sqrt(x),
    "math.atan2": lambda x, v: math.atan2(1.0, x),
    "math.fsum": lambda x, v: math.fsum([x, x]),
    "float": lambda x, v: float(x),
    "int": lambda x, v: int(x),
    "complex": lambda x, v: complex(x),
    "float64": lambda x, v: np.float64(x),
    "float32": lambda x, v: np.float32(x),
    "int64": lambda x, v: np.int64(x),
    "complex128": lambda x, v: np.complex128(x),
    "item": lambda x, v: x.item(),
    "tolist": lambda x, v: v.tolist(),
    "percent": lambda x, v: "%f" % x,  # noqa: UP031
    "format": lambda x, v: f"{x:.3f}",
    "range": lambda x, v: range(x),
    "index": lambda x, v: [1, 2, 3][x],
    "sum of a list": lambda x, v: np.sum([x, x]),
    "max of a list": lambda x, v: np.max([x, x]),
    "broadcast": lambda x, v: np.broadcast(v, v),
    "vectorize": lambda x, v: np.vectorize(lambda a: a + 1)(v),
    "random": lambda x, v: np.random.default_rng(0).normal(x),
    "choice": lambda x, v: np.random.default_rng(0).choice(v),
    "legacy random": lambda x, v: np.random.normal(v),
    "matrix": lambda x, v: np.matrix(v),
    "masked array": lambda x, v: np.ma.array(v),
    "masked sum": lambda x, v: np.ma.sum(v),
    "polynomial": lambda x, v: np.polynomial.Polynomial([1, 2.0])(x),
    "assert_allclose": lambda x, v: np.testing.assert_allclose(v, v),
    "sparse times vector": lambda x, v: scipy.sparse.csr_array(np.eye(3)) @ v,
    "sparse of a vector": lambda x, v: scipy.sparse.csr_array(v),
    "array.array": lambda x, v: array.array("d", [x]),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_conversions_raise(conversion, transform):
    """A constant in place of a traced value would be a wrong derivative without an error."""
    with pytest.raises((ConversionError, errors.AbstractValueError), match=r"(?s)test_errors.py:\d+ in .*remedy: "):
        TRANSFORMS[transform](CONVERSIONS[conversion])


@pytest.mark.parametrize("conversion", ["element", "math.sin", "array of scalars", "float"])
def test_the_remedy_of_a_conversion(conversion):
    for part in (r"functrace\.numpy\.array", r"functrace\.numpy\.zeros", r"numpy\.sin instead of math\.sin"):
        with pytest.raises(ConversionError, match=part):
            TRANSFORMS["grad"](CONVERSIONS[conversion])


@pytest.mark.parametrize("refused", [
    lambda x, v: struct.pack("d", x),
    lambda x, v: statistics.mean([x, x]),
    lambda x, v: np.zeros(x),
    lambda x, v: "%d" % x,  # noqa: UP031
    lambda x, v: memoryview(v),
    lambda x, v: assign(np.zeros(3).flat, 0, x),
    lambda x, v: hash(x),
])  # fmt: skip
def test_others_raise_in_their_own_words(refused):
    """Python and NumPy replace our message here; still nothing passes silently."""
    with pytest.raises((TypeError, ValueError, struct.error)):
        TRANSFORMS["grad"](refused)


def test_an_array_of_objects_keeps_tracers_alive():
    """NumPy can store any object; what is stored stays traced, and arithmetic on the array is refused."""

    def through_objects(x):
        boxes = np.empty(2, object)
        boxes[0], boxes[1] = x, 2 * x
        return boxes[0] * boxes[1]

    assert functrace.grad(through_objects)(3.0) == 12
    with pytest.raises(InputError, match=r"functrace\.numpy\.array\(list\)"):
        functrace.grad(lambda x: x * np.array([1, 2], object))(3.0)


def test_a_boolean_of_a_float_is_its_truth():
    def f(x):
        flags = np.zeros(2, bool)
        flags[0] = x
        return x * flags.sum()

    assert functrace.grad(f)(3.0) == 1


@pytest.mark.parametrize("constant", [
    lambda x: functrace.stop_gradient(x),
    lambda x: np.floor(x),
    lambda x: fnp.zeros(()) + 3,
])  # fmt: skip
def test_values_without_derivative_convert(constant):
    """No derivative is lost where none flows; under an outer transformation that differentiates it, one does."""

    def f(x):
        c = constant(x)
        return x * (float(c) + np.asarray(c) + np.array([c, 0.0])[0] + math.floor(c) + int(c))

    expected = 5 * float(constant(3.25)) if constant(3.25) == 3 else 3.25 * 3 + 3 + 3
    assert functrace.grad(f)(3.25) == pytest.approx(expected)
    assert functrace.jvp(f, (3.25,), (1.0,))[1] == pytest.approx(expected)
    assert functrace.grad(functrace.grad(f))(3.25) == 0
    with pytest.raises(ConversionError):
        functrace.make_jaxpr(f)(3.25)
    with pytest.raises(ConversionError):
        functrace.grad(lambda y: functrace.grad(lambda x: x * float(y))(1.0))(2.0)


OPERANDS = {
    "masked array": (np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0]), "filled"),
    "matrix": (np.matrix([1.0, 2.0, 3.0]), "keeps two axes"),
    "objects": (np.array([1, 2, 3], object), "astype"),
    "strings": (np.array(["a", "b", "c"]), "dtype=float"),
    "dates": (np.array([1, 2, 3], "m8[s]"), "timedelta64"),
    "fields": (np.zeros(3, [("a", float)]), r"value\['name'\]"),
    "sparse": (scipy.sparse.csr_array(np.eye(3)), "toarray"),
}


@pytest.mark.parametrize("kind", OPERANDS)
def test_other_array_types_as_operands(kind):
    other, remedy = OPERANDS[kind]
    for f in (lambda x, v: v * other, lambda x, v: np.add(v, other), lambda x, v: np.multiply(other, v)):
        with pytest.raises((InputError, ConversionError), match=remedy):
            TRANSFORMS["grad"](f)


def test_what_does_dispatch():
    """The neighbours of what is refused."""
    y = np.array([4.0, 5.0, 6.0])
    traced = {
        "stack": lambda v: np.stack([v, y]),
        "concatenate": lambda v: np.concatenate([y, v]),
        "r_": lambda v: np.concatenate([v, v]),
        "max": lambda v: max(v[0], v[1]) * v,
        "sum": lambda v: sum([v[0], v[1]]) * v,
        "unpacking": lambda v: fnp.array([*v, 1.0]),
        "array": lambda v: fnp.array([v[0], v[1]]),
        "list operand": lambda v: v * [1.0, 2.0, 3.0],
        "list first": lambda v: [1.0, 2.0, 3.0] * v,
        "numpy scalar first": lambda v: np.float64(2) * v,
        "len": lambda v: v * len(v),
    }
    for name, f in traced.items():
        np.testing.assert_allclose(functrace.jvp(f, (X,), (np.ones(3),))[0], f(X), err_msg=name)
    queries = (np.ndim, np.shape, np.size, np.isscalar, np.iscomplexobj, np.result_type)
    seen = []
    functrace.make_jaxpr(lambda v: (seen.extend(query(v) for query in queries), v)[1])(X)
    assert seen == [query(X) for query in queries]


# one example of each class


def leak():
    kept = []
    functrace.grad(lambda x: (kept.append(x), x)[1])(1.0)
    return kept[0] + 1


def no_rule():
    bare = Primitive(f"bare{id(object())}", lambda x: x, lambda aval: aval)
    return functrace.grad(lambda x: bare(x))(1.0)


def carry():
    return lax.scan(lambda c, x: ((c, c), x), 0.0, X)


def problem(objective, x0=X, **options):
    return optimize.Problem(objective, x0=x0, **options)


def no_solver():
    with mock.patch("functrace.optimize.ipopt.available_interfaces", return_value=[]):
        optimize.minimize(problem(np.sum), "ipopt")


def no_solution():
    unbounded = problem(lambda x, p: p * np.sum(x**3), -X, params=1.0)
    optimize.solution_sensitivity(unbounded, "BFGS")()


def many_solutions():
    valley = problem(lambda x, p: (x[0] + x[1] - p) ** 2, params=1.0)
    optimize.solution_sensitivity(valley, "BFGS")()


EXAMPLES = {
    "TreeError": (lambda: tree.map(lambda a, b: a, [1], {"a": 1}), "remedy"),
    "ArgumentError": (lambda: functrace.grad(lambda x: x, argnums=1)(1.0), "arguments by position"),
    "InputError": (lambda: functrace.grad(lambda x: x)("a"), "convert the value with"),
    "NonScalarOutputError": (lambda: functrace.grad(lambda x: x)(X), "jacrev"),
    "NonDifferentiableInputError": (lambda: functrace.grad(lambda x: x)(1), "float"),
    "TangentError": (lambda: functrace.jvp(np.sin, (X,), (1.0,)), "make the tangent"),
    "CotangentError": (lambda: functrace.vjp(np.sin, X)[1](1.0), "make the cotangent"),
    "CustomRuleError": (lambda: functrace.grad(functrace.custom_jvp(lambda x: x))(1.0), "defjvp"),
    "LeakedTracerError": (leak, "return the value from the transformed function"),
    "AbstractValueError": (lambda: functrace.make_jaxpr(lambda x: x if x > 0 else -x)(1.0), "where|cond"),
    "CallbackError": (lambda: functrace.pure_callback(lambda x: x[:1], X, X), "shapes and dtypes"),
    "CarryError": (carry, "carry"),
    "ConversionError": (lambda: functrace.grad(math.sin)(1.0), "numpy.sin instead of math.sin"),
    "AssignmentError": (lambda: functrace.grad(lambda x: X.__iadd__(x).sum())(X), r"functrace\.numpy\.array\(B\)"),
    "NonHashableError": (lambda: functrace.make_jaxpr(lambda x: x, static_argnums=0)([1]), "pass a tuple"),
    "BatchAxisError": (lambda: functrace.vmap(np.sin, in_axes=2)(X), "None for arguments that are not mapped"),
    "MissingRuleError": (no_rule, "define it with Primitive.define"),
    "UnsupportedFunctionError": (lambda: functrace.grad(np.unique)(X), r"numpy\.where"),
    "UnsupportedAttributeError": (lambda: functrace.grad(lambda x: x.tobytes())(X), "return the value"),
    "ShapeError": (lambda: functrace.grad(lambda x: (x + np.ones(2)).sum())(X), "insert axes"),
    "DTypeError": (lambda: functrace.grad(lambda x: x & 1)(1.0), "astype"),
    "IndexingError": (lambda: functrace.grad(lambda x: x[7])(X), "remedy"),
    "RegistrationError": (lambda: Primitive("sin", np.sin, lambda aval: aval), "another name"),
    "MissingSolverError": (no_solver, "pip install casadi"),
    "SolverFailureError": (no_solution, "try another method"),
    "DegenerateSolutionError": (many_solutions, "remedy"),
    "WrongStructureError": (
        lambda: sparse.jacobian(lambda x: x * x[0], pattern=np.eye(3)).prepare(X, check=True),
        "holds every nonzero",
    ),
    "JaxprError": (lambda: ClosedJaxpr(functrace.make_jaxpr(np.sin)(1.0).jaxpr, [1.0]), "constants"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_each_class(name):
    call, remedy = EXAMPLES[name]
    with pytest.raises(getattr(errors, name), match=remedy) as caught:
        call()
    assert type(caught.value).__name__ == name
    assert isinstance(caught.value, (TypeError, ValueError, IndexError, AttributeError, ArithmeticError, ImportError))


def test_every_class_has_an_example():
    classes = {name: getattr(errors, name) for name in errors.__all__}
    raised = {name for name, cls in classes.items() if not issubclass(cls, Warning)}
    assert raised == {*EXAMPLES, "FunctraceError"}
    assert all(issubclass(classes[name], FunctraceError) for name in raised)


def test_the_layout_of_a_message():
    error = FunctraceError("what happened", where="file.py:3 in f", got="float64[3]", remedy="do this")
    assert str(error) == "what happened\n  where: file.py:3 in f\n  got: float64[3]\n  remedy: do this"
    assert str(FunctraceError("what happened")) == "what happened"
