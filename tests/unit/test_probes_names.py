"""Names of probes: the grammar, the expansion of a study's factors, and that every kind can be fitted."""

import pytest

from actspace.errors import StudyError
from actspace.perturbations import families
from actspace.probes import fits, names


def test_every_kind_has_a_fit():
    assert list(fits.FITS) == list(names.KINDS)


@pytest.mark.parametrize(
    ("name", "kind", "C", "centring"),
    [
        ("logistic_regression", "logistic_regression", None, "train_mean"),
        ("logistic_regression_c0.01", "logistic_regression", 0.01, "train_mean"),
        ("logistic_regression_no_bias_c1e-5_uncentred", "logistic_regression_no_bias", 1e-5, "none"),
        ("mass_mean_covariance_per_dataset", "mass_mean_covariance", None, "per_dataset"),
    ],
)
def test_a_name_says_kind_penalty_and_centring(name, kind, C, centring):
    assert names.parse(name) == names.ProbeName(name, kind, C, centring)
    assert families.parse_direction(f"minus_probe_{name}").probe == name


@pytest.mark.parametrize("name", ["svm", "mass_mean_c10", "logistic_regression_c", "logistic_regression_c1_c2", ""])
def test_other_names_are_errors(name):
    with pytest.raises(StudyError, match=f"there is no probe '{name}'; there are logistic_regression, "):
        names.parse(name)


def test_factors_expand_to_names():
    kinds = ["logistic_regression", "mass_mean"]
    assert names.expand(kinds) == kinds
    assert names.expand(kinds, [0.01, 1e6, 1e-5]) == [
        "logistic_regression",
        "logistic_regression_c0.01",
        "logistic_regression_c1000000",
        "logistic_regression_c1e-5",
        "mass_mean",
    ]
    # A free bias takes up what centring takes off: one fit, not two.
    assert names.expand(kinds, centrings=["train_mean", "none", "per_dataset"]) == [
        "logistic_regression",
        "logistic_regression_per_dataset",
        "mass_mean",
        "mass_mean_uncentred",
        "mass_mean_per_dataset",
    ]


def test_expanded_names_parse_to_what_they_were_made_of():
    path, centrings = [0.003, 12.5, 1e-12, 3e15], list(names.SUFFIXES)
    found = [names.parse(name) for name in names.expand(names.KINDS, path, centrings)]
    assert {probe.C for probe in found} == {None, *path}
    assert {(probe.kind, probe.centring) for probe in found} >= {(kind, "per_dataset") for kind in names.KINDS}
