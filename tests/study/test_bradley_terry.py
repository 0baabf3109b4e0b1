import numpy as np
import pytest
from scipy.optimize import minimize

from dwarf_cxr.study.bradley_terry import log_strengths


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("runs", [3, 5])
def test_maximum_of_the_likelihood(seed, runs):
    rng = np.random.default_rng(seed)
    wins = rng.integers(1, 20, (runs, runs)) / 2
    np.fill_diagonal(wins, 0)

    def negative(free):
        logs = np.append(free, 0.0)
        return -sum(
            wins[i, j] * (logs[i] - np.logaddexp(logs[i], logs[j]))
            for i in range(runs)
            for j in range(runs)
        )

    best = np.append(minimize(negative, np.zeros(runs - 1), tol=1e-12).x, 0.0)
    found = log_strengths(wins)
    np.testing.assert_allclose(found, best - best.mean(), atol=1e-4)
    assert found.mean() == pytest.approx(0, abs=1e-12)


def test_two_runs_are_the_log_odds():
    found = log_strengths(np.array([[0, 30.0], [10.0, 0]]))
    assert found[0] - found[1] == pytest.approx(np.log(3))


def test_who_never_lost_has_no_strength():
    assert log_strengths(np.array([[0, 3.0, 4], [0, 0, 2], [0, 3, 0]])) is None
    assert log_strengths(np.zeros((3, 3))) is None
    # a beats b, b beats c, c beats a: everybody lost to somebody
    circle = np.array([[0, 1.0, 0], [0, 0, 1], [1, 0, 0]])
    np.testing.assert_allclose(log_strengths(circle), 0, atol=1e-9)
