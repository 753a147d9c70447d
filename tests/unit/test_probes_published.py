"""Probes as papers train them: against AdamW written out in float64, and against scikit-learn."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LinearRegression, LogisticRegression

from actspace.probes import published
from actspace.probes.metrics import cosine


def adamw(gradient, weight, steps=1000, rate=1e-3, decay=0.1, beta=(0.9, 0.999), eps=1e-8):
    """Follow Loshchilov & Hutter (2019), algorithm 2, with a constant schedule."""
    m, v = np.zeros_like(weight), np.zeros_like(weight)
    for step in range(1, steps + 1):
        slope = gradient(weight)
        m, v = beta[0] * m + (1 - beta[0]) * slope, beta[1] * v + (1 - beta[1]) * slope**2
        weight = weight * (1 - rate * decay)
        weight = weight - rate * (m / (1 - beta[0] ** step)) / (np.sqrt(v / (1 - beta[1] ** step)) + eps)
    return weight


def start(d, seed):
    return np.random.default_rng(seed).uniform(-1 / np.sqrt(d), 1 / np.sqrt(d), d)


def labelled(n=60, d=12, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 2)
    X = rng.standard_normal((n, d)) * np.geomspace(0.2, 4, d) + 3
    X[:, 2] += 1.5 * y
    return X, y


@pytest.mark.parametrize("centre", [True, False])
def test_logistic_regression_takes_the_steps_of_the_paper(centre):
    X, y = labelled()
    rows = X - X.mean(axis=0) if centre else X
    expected = adamw(lambda w: (expit(rows @ w) - y) @ rows / len(y), start(12, 7))
    probe = published.logistic_regression_adamw(X, y, np.random.default_rng(7), centre=centre)
    np.testing.assert_allclose(probe.direction, expected, atol=1e-4)
    assert probe.bias == pytest.approx(-expected @ X.mean(axis=0) if centre else 0.0, abs=1e-3)


def negated_pairs(n=80, d=10, seed=0):
    """Return statements and negations: truth along axis 0, a strong "not" along axis 1."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 2)
    X, negated = 0.3 * rng.standard_normal((2, n, d))
    X[:, 0] += 2 * y - 1
    negated[:, 0] -= 2 * y - 1
    negated[:, 1] += 8
    return X, negated, y


def test_ccs_minimises_inconsistency_and_doubt():
    X, negated, y = negated_pairs()
    rows, others = X - X.mean(axis=0), negated - negated.mean(axis=0)

    def gradient(w):
        p, q = expit(rows @ w), expit(others @ w)
        by_p = 2 * (p + q - 1) + np.where(p < q, 2 * p, 0)
        by_q = 2 * (p + q - 1) + np.where(q < p, 2 * q, 0)
        return ((by_p * p * (1 - p)) @ rows + (by_q * q * (1 - q)) @ others) / len(rows)

    expected = adamw(gradient, start(10, 3))
    expected = expected * np.sign(expected[0])  # the labels tell which sign is true
    probe = published.ccs(X, negated, y, np.random.default_rng(3))
    np.testing.assert_allclose(probe.direction, expected, atol=1e-4)
    assert probe.bias == pytest.approx(-expected @ (X.mean(axis=0) + negated.mean(axis=0)) / 2, abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_ccs_finds_truth_with_the_right_sign_and_not_the_negation(seed):
    X, negated, y = negated_pairs(seed=seed)
    direction = published.ccs(X, negated, y, np.random.default_rng(seed)).direction
    # A thousand steps of 1e-3 leave some of where the direction began.
    assert cosine(direction, np.eye(10)[0]) > 0.8
    uncentred = published.ccs(X, negated, y, np.random.default_rng(seed), centre=False)
    assert uncentred.bias == 0
    assert abs(cosine(uncentred.direction, np.eye(10)[1])) > abs(cosine(direction, np.eye(10)[1]))


def with_polarities(n=400, d=12, seed=0):
    """Return rows with a general truth direction, one that turns with polarity, polarity itself, and sets."""
    rng = np.random.default_rng(seed)
    y, sets = rng.integers(0, 2, n), rng.permutation(np.arange(n) % 4)
    polarity = np.where(sets < 2, 1, -1)
    truth = 2 * y - 1
    X = rng.standard_normal((n, d)) + rng.standard_normal((4, d))[sets]
    X[:, 0] += truth
    X[:, 1] += 2 * truth * polarity
    X[:, 2] += 3 * polarity
    return X, y, polarity, sets


def test_ttpd_is_least_squares_then_two_logistic_regressions():
    X, y, polarity, sets = with_polarities()
    centred = X - np.stack([X[sets == name].mean(axis=0) for name in range(4)])[sets]
    truth = 2 * y - 1
    design = np.stack([truth, truth * polarity], axis=1)
    general = LinearRegression(fit_intercept=False).fit(design, centred).coef_[:, 0]
    scale = np.sqrt(((X - X.mean(axis=0)) ** 2).mean())
    polar = LogisticRegression(tol=1e-10, max_iter=10_000).fit((X - X.mean(axis=0)) / scale, polarity).coef_[0]
    plane = np.stack([general, polar], axis=1)
    final = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(X @ plane, y)
    probe = published.ttpd(X, y, polarity, sets, tolerance=1e-9)
    np.testing.assert_allclose(probe.scores(X), final.decision_function(X @ plane), rtol=1e-4, atol=1e-4)


def test_ttpd_leaves_out_what_turns_with_polarity():
    X, y, polarity, sets = with_polarities(n=4000)
    direction = published.ttpd(X, y, polarity, sets).direction
    assert cosine(direction, np.eye(12)[0]) > 0.95
    assert abs(cosine(direction, np.eye(12)[1])) < 0.1


def test_constant_rows_give_no_direction():
    X, y = np.full((40, 6), 0.7), np.arange(40) % 2
    rng = np.random.default_rng(0)
    probes = [
        published.logistic_regression_adamw(X, y, rng),
        published.logistic_regression_adamw(X, y, rng, centre=False),
        published.ccs(X[:20], X[20:], y[:20], rng),
        published.ttpd(X, y, np.where(np.arange(40) < 20, 1, -1), np.arange(40) // 20),
    ]
    for probe in probes:
        assert not probe.direction.any(), probe.name
        np.testing.assert_array_equal(probe.scores(X), 0.0)
