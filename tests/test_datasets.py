import numpy as np

from functrace.datasets import load_wine


def test_wine_is_the_published_table():
    X, y = load_wine()
    assert X.shape == (13, 178) and X.dtype == np.float64 and X.flags.c_contiguous
    assert y.shape == (178,) and y.dtype == np.int64
    assert np.bincount(y).tolist() == [0, 59, 71, 48]  # cultivars 1, 2, 3
    # Published summary statistics: alcohol and proline, mean and range.
    np.testing.assert_allclose(X[[0, 12]].mean(axis=1), [13.0006, 746.8933], atol=5e-5)
    assert (X[0].min(), X[0].max(), X[12].min(), X[12].max()) == (11.03, 14.83, 278.0, 1680.0)


def test_wine_is_the_callers_own():
    load_wine()[0][:] = 0.0
    assert load_wine()[0].all(axis=1)[0]
