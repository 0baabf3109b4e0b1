import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from dwarf_cxr.study.bradley_terry import log_strengths, standard_errors


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


@pytest.mark.parametrize("seed", range(4))
def test_logistic_regression_without_penalty(seed):
    """A win of i over j is a case with +1 for i and -1 for j; not every two runs met."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 1, 5)
    wins = np.zeros((5, 5))
    for one in range(5):
        for two in range(one):
            if (one, two) not in ((3, 0), (4, 1)):
                chance = 1 / (1 + np.exp(true[two] - true[one]))
                won = rng.binomial(60, chance)
                wins[one, two], wins[two, one] = won, 60 - won
    cases, outcomes, weights = [], [], []
    for one, two in zip(*np.nonzero(wins), strict=True):
        case = np.zeros(5)
        case[one], case[two] = 1, -1
        cases += [case, -case]
        outcomes += [1, 0]
        weights += [wins[one, two]] * 2
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
    # the last run is the reference, so that the strengths are determined
    logs = fitted.fit(np.array(cases)[:, :4], outcomes, sample_weight=weights).coef_[0]
    expected = np.append(logs, 0.0)
    np.testing.assert_allclose(log_strengths(wins), expected - expected.mean(), atol=1e-4)


def test_a_long_chain_of_unequal_runs_converges():
    """Hunter's algorithm is slow where few defeats tie runs together; two digits are shown."""
    runs = 6
    wins = np.zeros((runs, runs))
    for one in range(runs - 1):
        wins[one, one + 1], wins[one + 1, one] = 200, 0.5
    steps = -np.diff(log_strengths(wins))
    np.testing.assert_allclose(steps, np.log(400), atol=1e-3)


def test_two_runs_are_the_log_odds():
    found = log_strengths(np.array([[0, 30.0], [10.0, 0]]))
    assert found[0] - found[1] == pytest.approx(np.log(3))


def test_who_never_lost_has_no_strength():
    assert log_strengths(np.array([[0, 3.0, 4], [0, 0, 2], [0, 3, 0]])) is None
    assert log_strengths(np.zeros((3, 3))) is None
    # a beats b, b beats c, c beats a: everybody lost to somebody
    circle = np.array([[0, 1.0, 0], [0, 0, 1], [1, 0, 0]])
    np.testing.assert_allclose(log_strengths(circle), 0, atol=1e-9)


def test_standard_errors_are_the_jackknife_s():
    """The spread of the strengths when clusters are left out one by one."""
    rng = np.random.default_rng(8)
    true, clusters = np.array([0.7, 0.1, -0.8]), 400
    wins = np.zeros((clusters, 3, 3))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        chance = 1 / (1 + np.exp(true[other] - true[one] + rng.normal(0, 1.5, clusters)))
        wins[:, one, other] = rng.binomial(4, chance)
        wins[:, other, one] = 4 - wins[:, one, other]
    total = wins.sum(axis=0)
    left_out = np.array([log_strengths(total - one) for one in wins])
    spread = ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0)
    expected = np.sqrt((clusters - 1) / clusters * spread)
    np.testing.assert_allclose(standard_errors(wins, log_strengths(total)), expected, rtol=0.02)
    assert np.isnan(standard_errors(wins[:1], np.zeros(3))).all()
