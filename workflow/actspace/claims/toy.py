"""Claims about truth directions in the toy, whose answers are known: a check of the methods and not of the model."""

from __future__ import annotations

from functools import partial

from actspace.claims.entry import SIGN_ALONE, Tables, claims_of, estimate_of, rows_of
from actspace.claims.intervals import Above, Estimate, difference
from actspace.claims.sources import GEOMETRY_OF_TRUTH, LESSON

TOY = "A toy: a check of the methods and not of the model."
PURE = "0.01 below 1, ours: a finite sample never gives the direction exactly."


def toy_score(tables: Tables, probe: str, metric: str) -> Estimate:
    """Read one score of one probe on the toy."""
    return estimate_of(rows_of(tables, "toy_truth", probe=probe, metric=metric).iloc[0])


def tilt_of_logistic_regression(tables: Tables) -> Estimate:
    """Cosine of LR with Σ⁻¹θ minus its cosine with theta."""
    tilted = toy_score(tables, "logistic_regression", "cosine_to_sigma_inv_theta")
    plain = toy_score(tables, "logistic_regression", "cosine_to_theta")
    return difference(tilted, plain, f"{tilted.value:.3f} and {plain.value:.3f}")


def shuffled_cosine(tables: Tables) -> Estimate:
    """Cosine with theta of LR on data shuffled within class."""
    found = toy_score(tables, "shuffled_logistic_regression", "cosine_to_theta")
    diagonal = rows_of(
        tables, "toy_truth", probe="shuffled_logistic_regression", metric="cosine_to_diag_inv_theta"
    ).iloc[0]
    detail = f"its cosine with diag(Σ)⁻¹θ is {diagonal['value']:.3f}"
    return Estimate(found.value, found.low, found.high, detail)


def toy_advantage(tables: Tables) -> Estimate:
    """Accuracy of LR minus accuracy of mass-mean on the toy."""
    better = toy_score(tables, "logistic_regression", "accuracy")
    return difference(better, toy_score(tables, "mass_mean", "accuracy"))


_claim = claims_of(table="toy_truth", figure="toy_truth")
CLAIMS = (
    _claim(
        id="lr_finds_tilted_direction",
        title="Logistic regression finds a tilted direction",
        source=f"{GEOMETRY_OF_TRUTH}; {LESSON}",
        sentence="With a nuisance direction that is uncorrelated with truth but not orthogonal to it, logistic "
        "regression finds Σ⁻¹θ and not the truth direction theta.",
        statistic="cosine of the logistic-regression direction with Σ⁻¹θ minus its cosine with theta",
        unit="cosine",
        compute=tilt_of_logistic_regression,
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
        note=TOY,
    ),
    _claim(
        id="mass_mean_finds_feature",
        title="Mass-mean finds the feature direction",
        source=f"{GEOMETRY_OF_TRUTH}; {LESSON}",
        sentence="The difference between the class means points along the truth direction itself.",
        statistic="cosine of the mass-mean direction with theta",
        unit="cosine",
        compute=partial(toy_score, probe="mass_mean", metric="cosine_to_theta"),
        criterion=Above(0.99),
        tolerance=PURE,
        note=TOY,
    ),
    _claim(
        id="lr_is_better_probe",
        title="The tilted direction is the better probe",
        source=f"{GEOMETRY_OF_TRUTH}; {LESSON}",
        sentence="Although it misses the feature direction, logistic regression tells true from false more accurately.",
        statistic="accuracy of logistic regression minus accuracy of mass-mean",
        unit="accuracy",
        compute=toy_advantage,
        criterion=Above(0.0),
        tolerance=SIGN_ALONE,
        note=TOY,
    ),
    _claim(
        id="shuffled_lr_finds_feature",
        title="Shuffling away the covariance recovers the feature",
        source=f"{LESSON}, a comment there",
        sentence="Fitted to data whose coordinates were shuffled independently within each class, a linear probe "
        "finds theta.",
        statistic="cosine with theta of logistic regression on the shuffled data",
        unit="cosine",
        compute=shuffled_cosine,
        criterion=Above(0.99),
        tolerance=PURE,
        note="Shuffling keeps each coordinate's variance, so the probe finds diag(Σ)⁻¹θ; that is theta only where "
        f"the marginal variances are equal. {TOY}",
    ),
)
