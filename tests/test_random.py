"""Random numbers: the published vectors, the distributions, and every transformation."""

import math
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import functrace as ft
from functrace import random
from functrace.core.ir import check_jaxpr
from functrace.primitives.random import random_bits
from functrace.testing import check_grads

KEY = random.key(20260701)
N = 20_000
UINT64 = np.dtype(np.uint64)


def block(key, counter, count=1):
    """Images of counters, by the method for few (count 1) or for many."""
    k = np.array([key >> 32, key & 0xFFFFFFFF], np.uint32)
    return random_bits(k, np.uint64(counter), shape=(count,), dtype=UINT64)


# the generator

# The vectors that accompany the paper (Random123, kat_vectors, threefry2x32 with 20 rounds): key, counter, result.
KNOWN_ANSWERS = [
    (0, 0, 0x6B20015999BA4EFE),
    (2**64 - 1, 2**64 - 1, 0x1CB996FCBB002BE7),
    (0x13198A2E03707344, 0x243F6A8885A308D3, 0xC4923A9C483DF7A0),
]


@pytest.mark.parametrize("key, counter, expected", KNOWN_ANSWERS)
@pytest.mark.parametrize("count", [1, 3, 500])
def test_known_answers(key, counter, expected, count):
    assert int(block(key, counter, count)[0]) == expected


def test_methods_for_few_and_for_many_agree():
    many = block(0x0123456789ABCDEF, 2**32 - 150, 20_000)
    few = [block(0x0123456789ABCDEF, 2**32 - 150 + i, 100) for i in range(0, 300, 100)]
    assert_array_equal(many[:300], np.concatenate(few))
    assert_array_equal(many[[8191, 8192]], block(0x0123456789ABCDEF, 2**32 - 150 + 8191, 2))


def test_counter_wraps_around():
    assert_array_equal(block(7, 2**64 - 2, 4), [block(7, c % 2**64)[0] for c in range(2**64 - 2, 2**64 + 2)])


def test_keys_and_bits_are_those_of_jax():
    key = random.key(42)  # jax 0.10.2: PRNGKey(42), and so on
    assert_array_equal(key, [0, 42])
    assert_array_equal(random.key(2**40 + 7), [256, 7])
    assert_array_equal(random.key(-1), [2**32 - 1] * 2)
    rows = [[1832780943, 270669613], [64467757, 2916123636], [2465931498, 255383827], [3134548294, 894150801]]
    assert_array_equal(random.split(key, 3), rows[:3])
    assert_array_equal(random.split(key, (2, 2)), np.reshape(rows, (2, 2, 2)))
    assert_array_equal(random.fold_in(key, 7), [2547012911, 1371500959])
    assert_array_equal(random.bits(key, (2, 2), "uint8"), [[162, 217], [249, 215]])
    assert_array_equal(random.bits(key, (2, 2), "uint16"), [[5026, 12505], [63993, 49623]])
    assert_array_equal(random.bits(key, 3, "uint32"), [2098992034, 2919706841, 2646866425])
    assert_array_equal(random.bits(key, 2), np.array([7871734211187709741, 276886910877598708], np.uint64))


# jax 0.10.2 with jax_enable_x64, PRNGKey(42), shape (3,)
JAX = {
    "uniform": [0.4267275666499091, 0.01501006951531458, 0.5741444178995352],
    "normal": [-0.18471174528191162, -2.169824560397754, 0.18693555179382582],
    "exponential": [0.5563942243855916, 0.01512386072048934, 0.8536549993431988],
    "gumbel": [0.16062720630382138, -1.4348544993307841, 0.5890136500161952],
    "laplace": [0.15846230602649014, 3.5058868215207473, -0.16050781878325354],
    "logistic": [-0.29521526220084393, -4.183910141360207, 0.29878068416298553],
    "cauchy": [-0.23434604341667786, -21.19070234669309, 0.23723777098183235],
}


@pytest.mark.parametrize("name", JAX)
def test_continuous_numbers_are_those_of_jax_to_rounding(name):
    assert_allclose(getattr(random, name)(random.key(42), 3), JAX[name], rtol=1e-12)


def test_every_bit_is_fair_and_avalanches():
    words = random.bits(KEY, N)
    ones = np.array([np.count_nonzero(words >> np.uint64(b) & np.uint64(1)) for b in range(64)])
    assert np.abs(ones - N / 2).max() < 4.5 * math.sqrt(N) / 2
    distances = [int(block(1 << b, 12345)[0]) ^ int(block(0, 12345)[0]) for b in range(64)]
    distances += [int(block(99, 1 << b)[0]) ^ int(block(99, 0)[0]) for b in range(64)]
    assert abs(np.mean([d.bit_count() for d in distances]) - 32) < 4.5 * 4 / math.sqrt(128)


def test_split_keys_are_distinct_and_independent():
    keys = random.split(KEY, 100_000)
    assert len(np.unique(keys, axis=0)) == 100_000
    samples = ft.vmap(lambda k: random.normal(k, 500))(keys[:40])
    correlations = np.corrcoef(samples)[np.triu_indices(40, 1)]
    assert np.abs(correlations).max() < 4.5 / math.sqrt(500)
    assert stats.kstest(samples.ravel(), "norm").pvalue > 1e-3
    assert len({tuple(random.fold_in(KEY, i).tolist()) for i in [-1, 2**40, *range(1000)]}) == 1002


# distributions

CONTINUOUS = {
    "uniform": (random.uniform, "uniform"),
    "normal": (random.normal, "norm"),
    "exponential": (random.exponential, "expon"),
    "gumbel": (random.gumbel, "gumbel_r"),
    "laplace": (random.laplace, "laplace"),
    "logistic": (random.logistic, "logistic"),
    "cauchy": (random.cauchy, "cauchy"),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_distributions(name, dtype):
    draw, law = CONTINUOUS[name]
    sample = draw(KEY, (N // 100, 100), dtype)
    assert type(sample) is np.ndarray and sample.shape == (N // 100, 100) and sample.dtype == dtype
    assert stats.kstest(sample.ravel().astype(float), law).pvalue > 1e-3
    scalar = draw(KEY, (), dtype)
    assert type(scalar) is dtype
    assert scalar == sample[0, 0]


def given_words(monkeypatch, word):
    """Replace the generator by one that repeats the highest (word -1) or lowest bits."""

    def fill(key, start, *, shape, dtype):
        return np.full(shape, word % 2 ** (8 * dtype.itemsize), dtype)[()]

    monkeypatch.setattr("functrace.random._keys.random_bits", fill)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("word", [-1, 0])
def test_extreme_words_give_finite_numbers(monkeypatch, word, dtype):
    given_words(monkeypatch, word)
    for name, (draw, _) in CONTINUOUS.items():
        extreme = draw(KEY, (2,), dtype)
        assert np.all(np.isfinite(extreme)), name
    unit = 1 - np.finfo(dtype).epsneg if word else 0
    assert random.uniform(KEY, (), dtype) == unit
    assert random.exponential(KEY, (), dtype) > 0
    assert abs(random.normal(KEY, (), dtype)) > (8.2 if dtype is np.float64 else 5.1)
    for low, high in [(-1, 1), (0.1, 0.3), (1e-300, 2e-300), (-1.5 * 2.0**-53, 1), (1, 1 + 1e-15), (3, 3.5)]:
        low, high = dtype(low), dtype(high)
        if low < high:
            drawn = random.uniform(KEY, (), dtype, low, high)
            assert low <= drawn < high and drawn.dtype == dtype
    low, high = np.array([-1.0, 2, 5]), np.array([[1.0], [3]])
    drawn = random.truncated_normal(KEY, low, low + high)
    assert drawn.shape == (2, 3) and np.all((low <= drawn) & (drawn <= low + high))


def test_uniform_in_an_interval():
    sample = random.uniform(KEY, N, minval=-2, maxval=5)
    assert stats.kstest(sample, stats.uniform(-2, 7).cdf).pvalue > 1e-3
    ends = np.array([1.0, 10.0])
    rows = random.uniform(KEY, (3, 2), minval=0, maxval=ends)
    assert_allclose(rows, random.uniform(KEY, (3, 2)) * ends, rtol=1e-15)
    assert random.uniform(KEY, 3, "float32", 0, ends[0]).dtype == np.float32
    assert_array_equal(random.uniform(KEY, 3, minval=2.0, maxval=2.0), [2.0] * 3)


@pytest.mark.parametrize(
    "lower, upper", [(-1, 2), (0, 1), (2, 3), (-np.inf, -1), (8, np.inf), (-9, -8.5), (-np.inf, np.inf), (30, 31)]
)
def test_truncated_normal(lower, upper):
    sample = random.truncated_normal(KEY, lower, upper, N)
    assert sample.min() >= lower and sample.max() <= upper
    assert stats.kstest(sample, stats.truncnorm(lower, upper).cdf).pvalue > 1e-3


def test_truncated_normal_in_single_precision():
    sample = random.truncated_normal(KEY, np.float32(1), np.array([2.0, 3.0]), (N // 2, 2), "float32")
    assert sample.dtype == np.float32
    for column, upper in zip(sample.T.astype(float), (2, 3), strict=True):
        assert stats.kstest(column, stats.truncnorm(1, upper).cdf).pvalue > 1e-3


def test_multivariate_normal():
    mean, cov = np.array([1.0, -2, 3]), np.array([[4.0, 1, 0], [1, 2, -0.5], [0, -0.5, 1]])
    sample = random.multivariate_normal(KEY, mean, cov, N)
    assert sample.shape == (N, 3)
    white = np.linalg.solve(np.linalg.cholesky(cov), (sample - mean).T)
    assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3
    assert_allclose(np.cov(sample.T), cov, atol=0.1)
    means, covs = np.stack([mean, -mean]), np.stack([cov, 2 * cov, 3 * cov])[:, None]
    batch = random.multivariate_normal(KEY, means, covs)
    assert batch.shape == (3, 2, 3)
    assert random.multivariate_normal(KEY, mean, cov, (4, 1), "float32").dtype == np.float32


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("low, high", [(0, 7), (100, 127)])
def test_randint_is_uniform(dtype, low, high):
    sample = random.randint(KEY, N, low, high, dtype)
    assert sample.dtype == dtype and sample.min() >= low and sample.max() < high
    assert stats.chisquare(np.bincount(sample.astype(int) - low)).pvalue > 1e-3


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint32", "int64", "uint64"])
def test_randint_of_the_whole_range(dtype):
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max) + 1
    sample = random.randint(KEY, N, low, high, dtype)
    fractions = (sample.astype(float) - low) / (high - low)
    assert stats.chisquare(np.histogram(fractions, 16, (0, 1))[0]).pvalue > 1e-3
    # Three quarters of the range: a remainder of 64 bits would prefer its first third.
    sample = random.randint(KEY, N, low, low + 3 * (high - low) // 4, dtype)
    assert sample.dtype == dtype
    assert stats.kstest((sample.astype(float) - low) / (0.75 * (high - low)), "uniform").statistic < 0.02
    assert random.randint(KEY, (), low, low + 1, dtype) == low
    assert random.randint(KEY, (), high - 1, high, dtype) == high - 1


def test_randint_is_the_integer_part_of_a_long_product():
    first = random.bits(KEY, 50).tolist()
    second = random_bits(KEY, np.uint64(2**63), shape=(50,), dtype=UINT64).tolist()
    for count in (1, 10, 2**32 - 1, 2**32, 2**32 + 1, 12345678901234567, 2**63 - 1):
        exact = [((a << 64 | b) * count >> 128) - 5 for a, b in zip(first, second, strict=True)]
        assert_array_equal(random.randint(KEY, 50, -5, count - 5), exact)
        assert_array_equal(random.randint(KEY, 50, np.full(50, -5), count - 5), exact)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            jaxpr = ft.make_jaxpr(lambda n: random.randint(KEY, (), -5, n))(1)
            assert ft.eval_jaxpr(jaxpr.jaxpr, jaxpr.consts, np.int64(count - 5))[0] == exact[0]


def test_randint_with_arrays_of_bounds():
    low, high = np.array([0, -10, 1000]), np.array([[5], [2000]])
    sample = random.randint(KEY, (2000, 2, 3), low, np.maximum(high, low + 1))
    assert np.all((sample >= low) & (sample < np.maximum(high, low + 1)))
    assert set(np.unique(sample[:, 0, 0])) == set(range(5))
    empty = ft.vmap(lambda n: random.randint(KEY, (), 3, n))(np.array([3, -7, 4]))
    assert_array_equal(empty, [3, 3, 3])


def test_bernoulli_and_rademacher():
    p = np.array([0.0, 0.2, 0.5, 1.0])
    coins = random.bernoulli(KEY, p, (N, 4))
    assert coins.dtype == bool
    assert not coins[:, 0].any() and coins[:, 3].all()
    assert np.all(np.abs(coins.mean(0) - p) <= 4.5 * np.sqrt(p * (1 - p) / N))
    assert type(random.bernoulli(KEY)) is np.bool_
    assert random.bernoulli(KEY, np.float32(0.5), 3).shape == (3,)
    signs = random.rademacher(KEY, N)
    assert signs.dtype == np.int64
    assert set(signs) == {-1, 1} and abs(signs.sum()) < 4.5 * math.sqrt(N)
    assert_array_equal(random.rademacher(KEY, (2, 3), "float32"), signs[:6].reshape(2, 3).astype("f4"))


def test_categorical():
    p = np.array([0.1, 0.6, 0.0, 0.3])
    logits = np.array([math.log(x) if x else -np.inf for x in p]) + 7
    sample = random.categorical(KEY, logits, shape=(N,))
    counts = np.bincount(sample, minlength=4)
    assert counts[2] == 0 and stats.chisquare(counts[p > 0], N * p[p > 0]).pvalue > 1e-3
    table = np.zeros((5, 4, 3))
    for axis, rest in ((-1, (5, 4)), (0, (4, 3)), (1, (5, 3))):
        assert random.categorical(KEY, table, axis).shape == rest
        sample = random.categorical(KEY, table, axis, (N // 10, *rest))
        assert stats.chisquare(np.bincount(sample.ravel(), minlength=table.shape[axis])).pvalue > 1e-3
    assert random.categorical(KEY, np.zeros((1, 3), "f4"), shape=(2, 6)).shape == (2, 6)


def test_choice_with_replacement():
    sample = random.choice(KEY, 6, (N,))
    assert stats.chisquare(np.bincount(sample)).pvalue > 1e-3
    weights = np.array([0, 3.0, 1, 0, 4, 0])
    counts = np.bincount(random.choice(KEY, 6, (N,), p=weights), minlength=6)
    assert np.all((counts > 0) == (weights > 0))
    assert stats.chisquare(counts[weights > 0], N * weights[weights > 0] / 8).pvalue > 1e-3
    letters = np.array([[10.0, 20, 30], [40, 50, 60]])
    assert set(random.choice(KEY, letters[0], (2, 50)).ravel()) == {10, 20, 30}
    columns = random.choice(KEY, letters, (4, 5), axis=1)
    assert columns.shape == (2, 4, 5)
    assert_array_equal(columns[1] - columns[0], np.full((4, 5), 30.0))
    assert random.choice(KEY, letters).shape == (3,)
    assert random.choice(KEY, 0, (0,)).shape == (0,)


def test_choice_without_replacement():
    keys = random.split(KEY, 5000)
    pairs = ft.vmap(lambda k: random.choice(k, 4, (2,), replace=False))(keys)
    ordered = pairs[:, 0] * 4 + pairs[:, 1]
    assert np.all(pairs[:, 0] != pairs[:, 1])
    assert stats.chisquare(np.unique(ordered, return_counts=True)[1]).pvalue > 1e-3
    p = np.array([0.5, 0.3, 0.2, 0.0])
    pairs = ft.vmap(lambda k: random.choice(k, 4, (2,), replace=False, p=p))(keys)
    expected = {(i, j): p[i] * p[j] / (1 - p[i]) for i in range(3) for j in range(3) if i != j}
    counts = [np.count_nonzero((pairs == pair).all(1)) for pair in expected]
    assert stats.chisquare(counts, 5000 * np.array(list(expected.values()))).pvalue > 1e-3


def test_permutation():
    keys = random.split(KEY, 6000)
    orders = ft.vmap(lambda k: random.permutation(k, 4))(keys)
    assert_array_equal(np.sort(orders), np.tile(np.arange(4), (6000, 1)))
    counts = np.unique(orders @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 1e-3
    x = np.arange(24.0).reshape(4, 6)
    rows, columns = random.permutation(KEY, x), random.permutation(KEY, x, 1)
    assert_array_equal(rows, x[random.permutation(KEY, 4)])
    assert_array_equal(columns, x[:, random.permutation(KEY, 6)])
    mixed = random.permutation(KEY, x, -1, independent=True)
    assert_array_equal(np.sort(mixed), x)
    assert len(np.unique(mixed % 6, axis=0)) == 4
    assert random.permutation(KEY, 0).shape == (0,)


# transformations

LOGITS = np.log([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])
DRAWS = {
    "split": lambda k: random.split(k, 3),
    "fold_in": lambda k: random.fold_in(k, 11),
    "bits": lambda k: random.bits(k, (2, 3), "uint16"),
    "uniform": lambda k: random.uniform(k, (2,), minval=-1, maxval=np.array([1.0, 2])),
    "uniform-single": lambda k: random.uniform(k, (), "float32"),
    "normal": lambda k: random.normal(k, (3, 1)),
    "truncated_normal": lambda k: random.truncated_normal(k, -1, [[2.0], [np.inf]], (2, 2)),
    "exponential": lambda k: random.exponential(k, 2),
    "gumbel": lambda k: random.gumbel(k),
    "laplace": lambda k: random.laplace(k, 2),
    "logistic": lambda k: random.logistic(k, 2),
    "cauchy": lambda k: random.cauchy(k, 2),
    "multivariate_normal": lambda k: random.multivariate_normal(k, [1.0, 2], [[2.0, 1], [1, 3]], (4,)),
    "randint": lambda k: random.randint(k, (2, 2), -5, 2**40),
    "randint-scalar": lambda k: random.randint(k, (), np.array(-5), 2**60),
    "randint-narrow": lambda k: random.randint(k, (3,), np.array([0, 1, 2]), 9, "int16"),
    "bernoulli": lambda k: random.bernoulli(k, 0.3, (4,)),
    "rademacher": lambda k: random.rademacher(k, (4,), float),
    "categorical": lambda k: random.categorical(k, LOGITS, 0, (2, 3)),
    "choice": lambda k: random.choice(k, np.arange(12.0).reshape(4, 3), (2,)),
    "choice-weighted": lambda k: random.choice(k, 4, (2, 2), p=[0.1, 0.2, 0.0, 0.7]),
    "choice-distinct": lambda k: random.choice(k, 5, (3,), replace=False, p=[1.0, 2, 3, 4, 5]),
    "permutation": lambda k: random.permutation(k, np.arange(6.0).reshape(3, 2)),
    "permutation-independent": lambda k: random.permutation(k, np.arange(6.0).reshape(2, 3), 1, True),
    "loop": lambda k: random.normal(random.split(random.fold_in(k, 3))[1], 2),
}


@pytest.mark.parametrize("name", DRAWS)
def test_staged_is_eager(name):
    draw = DRAWS[name]
    jaxpr = ft.make_jaxpr(draw)(KEY)
    check_jaxpr(jaxpr.jaxpr)
    assert "random_bits" in repr(jaxpr)
    (staged,) = ft.eval_jaxpr(jaxpr.jaxpr, jaxpr.consts, KEY)
    eager = draw(KEY)
    assert staged.dtype == eager.dtype and staged.shape == eager.shape
    assert_array_equal(staged, eager)
    assert_array_equal(draw(KEY), eager)


@pytest.mark.parametrize("name", DRAWS)
def test_vmap_over_keys_is_a_loop(name):
    draw = DRAWS[name]
    keys = random.split(KEY, (2, 3))
    loop = np.stack([np.stack([draw(k) for k in row]) for row in keys])
    assert_array_equal(ft.vmap(draw)(keys[0]), loop[0])
    assert_array_equal(ft.vmap(ft.vmap(draw))(keys), loop)
    assert_array_equal(ft.vmap(draw, in_axes=1)(keys[0].T), loop[0])


@pytest.mark.parametrize("name", DRAWS)
def test_draws_inside_grad_and_jvp_are_the_same(name):
    seen = []

    def f(x):
        seen.append(DRAWS[name](KEY))
        return x * 2

    ft.grad(f)(1.0)
    ft.jvp(f, (1.0,), (1.0,))
    for value in seen:
        assert_array_equal(value, DRAWS[name](KEY))


def test_traced_seeds_data_and_counters():
    seeds = np.array([0, -1, 42, 2**62])
    assert_array_equal(ft.vmap(random.key)(seeds), [random.key(int(s)) for s in seeds])
    assert_array_equal(ft.vmap(lambda i: random.fold_in(KEY, i))(seeds), [random.fold_in(KEY, int(s)) for s in seeds])
    small = seeds[:3].astype(np.int8)
    assert_array_equal(ft.vmap(random.key)(small), [random.key(int(s)) for s in small])
    both = ft.vmap(random.fold_in)(random.split(KEY, 4), seeds)
    assert_array_equal(both, [random.fold_in(k, s) for k, s in zip(random.split(KEY, 4), seeds, strict=True)])
    jaxpr = ft.make_jaxpr(lambda seed: random.normal(random.key(seed), (2,)))(3)
    assert_array_equal(ft.eval_jaxpr(jaxpr.jaxpr, jaxpr.consts, np.int64(-9))[0], random.normal(random.key(-9), (2,)))


def test_jaxpr_shows_the_generator():
    text = repr(ft.make_jaxpr(lambda k: random.uniform(k, (3,)))(KEY))
    assert "b:uint64[3] = random_bits[shape=(3,), dtype=uint64] a 0" in text


# derivatives


def test_uniform_derivatives_are_the_fractions():
    fraction = random.uniform(KEY, (4,))
    low, high = np.array([-1.0, 0, 2, 3]), 5.0
    by_low, by_high = ft.jacrev(lambda a, b: random.uniform(KEY, (4,), minval=a, maxval=b), (0, 1))(low, high)
    assert_allclose(by_low, np.diag(1 - fraction), rtol=1e-14)
    assert_allclose(by_high, fraction, rtol=1e-14)
    check_grads(lambda a, b: random.uniform(KEY, (4,), minval=a, maxval=b), (low, high), order=2)


def test_uniform_derivative_at_the_clamped_end(monkeypatch):
    given_words(monkeypatch, -1)

    def draw(low, high):
        return random.uniform(KEY, (), float, low, high)

    assert draw(1.0, 1 + 1e-15) < 1 + 1e-15
    for jacobian in (ft.jacfwd, ft.jacrev):
        assert_allclose(jacobian(draw, (0, 1))(1.0, 1 + 1e-15), (0, 1), atol=1e-15)


@pytest.mark.parametrize("low, high", [(-1.0, 2.0), (0.5, 1.0), (-3.0, -2.5), (6.0, 9.0)])
def test_truncated_normal_derivatives(low, high):
    density = stats.norm.pdf
    fraction = random.uniform(KEY, (3,))
    x = random.truncated_normal(KEY, low, high, 3)
    by_low, by_high = ft.jacfwd(lambda a, b: random.truncated_normal(KEY, a, b, 3), (0, 1))(low, high)
    assert_allclose(by_low, (1 - fraction) * density(low) / density(x), rtol=1e-9)
    assert_allclose(by_high, fraction * density(high) / density(x), rtol=1e-9)
    check_grads(lambda a, b: random.truncated_normal(KEY, a, b, 3), (low, high), order=2, rtol=1e-4)


def test_truncated_normal_with_an_infinite_bound():
    for jacobian in (ft.jacfwd, ft.jacrev):
        by_low, by_high = jacobian(lambda a, b: random.truncated_normal(KEY, a, b), (0, 1))(-np.inf, 1.0)
        x = random.truncated_normal(KEY, -np.inf, 1.0)
        assert by_low == 0
        assert_allclose(by_high, random.uniform(KEY) * stats.norm.pdf(1) / stats.norm.pdf(x), rtol=1e-12)


def test_truncated_normal_without_mass_is_nan_when_traced():
    lost = ft.vmap(lambda a: random.truncated_normal(KEY, a, a + 1))(np.array([0.0, 50.0, -60.0]))
    assert_array_equal(np.isnan(lost), [False, True, True])


def test_samples_are_differentiable_in_what_scales_them():
    noise = random.normal(KEY, (5,))

    def sample(mean, scale):
        return mean + scale * random.normal(KEY, (5,))

    by_mean, by_scale = ft.jacrev(sample, (0, 1))(1.0, 2.0)
    assert_array_equal(by_mean, np.ones(5))
    assert_array_equal(by_scale, noise)

    def loss(scale):
        return np.sum(np.exp(scale * random.normal(KEY, (5,))))

    expected = np.sum(noise**2 * np.exp(0.3 * noise))
    for mode in ("fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"):
        assert_allclose(ft.hessian(loss, mode=mode)(0.3), expected, rtol=1e-12)


def test_multivariate_normal_derivatives(rng):
    factor = rng.standard_normal((3, 3)) + 2 * np.eye(3)

    def draw(mean, a):
        return random.multivariate_normal(KEY, mean, a @ a.T, (2,))

    check_grads(draw, (np.array([1.0, 2, 3]), factor), order=2, rtol=1e-4)


def test_permutation_and_choice_are_linear_in_the_array():
    x, w = np.arange(12.0).reshape(4, 3), np.arange(1.0, 13).reshape(4, 3)
    for draw in (
        lambda x: random.permutation(KEY, x),
        lambda x: random.permutation(KEY, x, 1, independent=True),
        lambda x: random.choice(KEY, x, (4,)),
        lambda x: random.choice(KEY, x, (4,), replace=False, p=np.ones(4)),
    ):
        value, pull = ft.vjp(draw, x)
        assert_array_equal(value, draw(x))
        (bar,) = pull(w)
        tangent = np.cos(x)
        assert_allclose(np.vdot(bar, tangent), np.vdot(w, draw(tangent)))


def test_keys_as_arguments_of_differentiated_functions():
    def loss(scale, key):
        first, second = random.split(key)
        return scale * random.normal(first) + scale**2 * random.uniform(second)

    keys = random.split(KEY, 3)
    grads = ft.vmap(ft.grad(loss), in_axes=(None, 0))(2.0, keys)
    expected = [random.normal(random.split(k)[0]) + 4 * random.uniform(random.split(k)[1]) for k in keys]
    assert_allclose(grads, expected, rtol=1e-14)
    assert_allclose(ft.grad(lambda s: ft.vmap(loss, in_axes=(None, 0))(s, keys).sum())(2.0), sum(expected), rtol=1e-14)


def test_discrete_results_have_no_derivative():
    def f(p):
        return np.where(random.bernoulli(KEY, p, (50,)), p, 2 * p).sum()

    coins = random.bernoulli(KEY, 0.4, (50,))
    assert_allclose(ft.grad(f)(0.4), coins.sum() + 2 * (~coins).sum())
    picked = random.categorical(KEY, LOGITS[0])
    assert_array_equal(ft.grad(lambda z: z[random.categorical(KEY, z)])(LOGITS[0]), np.eye(3)[picked])
