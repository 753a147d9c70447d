"""Sections on directions of truth: probes, cascades of them, their causal effect, and the toy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from actspace.config.fields import (
    Float,
    Hook,
    Hooks,
    Integer,
    Name,
    NonNegative,
    Positive,
    PositiveFloat,
    Strict,
    as_integer,
    as_number,
    quoted,
)
from actspace.probes import names
from actspace.probes.names import Centring, ProbeKind


class CascadeStage(Strict):
    """A probe at a hook point of the capture, fitted on all sets of statements together."""

    probe: str = Field(description="Name of one of the probe study's probes.")
    hook: Hook = Field(description="Hook point; at an early one a forward pass may stop.")


Rate = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False), BeforeValidator(as_number)]


class Monitoring(Strict):
    """Cascades: a cheap first probe over all statements, an expensive second one over what the first passes on."""

    first: list[CascadeStage] = Field(
        min_length=1, description="First stages. Passing on at random is added as a control."
    )
    second: list[CascadeStage] = Field(min_length=1, description="Second stages; each is paired with every first one.")
    label: Annotated[int, Field(ge=0, le=1), BeforeValidator(as_integer)] = Field(
        1, description="What is looked for: statements with this label, 1 (true) or 0 (false)."
    )
    false_positive_rates: list[Rate] = Field(
        [0.05],
        min_length=1,
        description="Rates that a cascade is allowed. A threshold for the rate r needs 1 / r - 1 held-out statements without the label.",
    )
    shares: list[Rate] = Field(
        [0.05, 0.1, 0.2, 0.3, 0.5, 0.7],
        min_length=1,
        description="Shares of all inputs that the first stage passes on; none and all, each stage alone, are added.",
    )


class Probes(Strict):
    """Linear probes of truth at every hook point of one capture of statements."""

    capture: Name = Field(description="Name of a capture of `statements`.")
    probes: list[ProbeKind] = Field(
        [
            "logistic_regression",
            "mass_mean",
            "mass_mean_covariance",
            "shuffled_logistic_regression",
            "random_direction",
            "shuffled_labels",
        ],
        min_length=1,
        description="Probes to fit. `ccs` needs statements and their negations (sets `x` and `neg_x`, row by row), `ttpd` affirmative and "
        "negated ones. `ccs` and above all `logistic_regression_adamw`, a thousand steps per fit, are slow.",
    )
    position: Literal["last"] | Integer = Field(
        "last",
        description="Which token of every statement is read, among those that the capture stores: `last`, or a number as in its `positions`; -2 is "
        "the one before the full stop that ends a statement.",
    )
    splits: Positive = Field(10, description="Random splits by entity.")
    test_fraction: Float = Field(0.3, gt=0, lt=1, description="Share of entities held out in each split.")
    C: Float = Field(1.0, gt=0, description="Inverse strength of the L2 penalty of logistic regression.")
    C_path: list[Annotated[Float, Field(gt=0)]] = Field(
        default_factory=list,
        description="Further values of C: logistic regression with and without bias is fitted with each, as `logistic_regression_c<C>`.",
    )
    centring: list[Centring] = Field(
        ["train_mean"],
        min_length=1,
        description="What is taken off before a fit, as a factor: `train_mean` the mean of the training rows; `none` nothing, and probes that fit "
        "no bias have none (`<probe>_uncentred`); `per_dataset` the mean of each set, held-out statements too (`<probe>_per_dataset`).",
    )
    pseudo_inverse_tolerance: Float = Field(
        1e-4,
        gt=0,
        lt=1,
        description="`mass_mean_pseudo_inverse` leaves out eigenvalues of the covariance up to this fraction of the largest one.",
    )
    pictured: Hook | None = Field(
        None,
        description="Hook point at which the statements are drawn in their principal plane; without it the one where the probes are most accurate.",
    )
    monitoring: Monitoring | None = Field(None, description="Pairs of probes as cascades; left out unless given.")

    @property
    def fits(self) -> list[str]:
        """Names of all probes: kinds with every C and under every centring."""
        return names.expand(self.probes, self.C_path, self.centring)


class Causal(Strict):
    """Add and subtract the directions of probes inside statements, and see whether the model then calls them true or false."""

    probes: Name = Field(
        description="Name of an entry of `probes`; the directions of its first split are tested, on statements held out there."
    )
    fits: list[str] | None = Field(None, min_length=1, description="Its probes to test, by name; null: all of them.")
    train_set: str = Field(
        "all", description="Set of statements that the probes were fitted on, or `all` of them together."
    )
    sets: list[Name] | None = Field(
        None, min_length=1, description="Sets whose statements are changed; null: all of them."
    )
    hooks: Hooks = Field(description="Hook points of the probes' capture to add directions at.")
    together: bool = Field(
        False,
        description="Add at all hook points in one run, each its own direction, as Marks & Tegmark do; otherwise at each by itself.",
    )
    positions: list[Annotated[int, Field(le=-1), BeforeValidator(as_integer)]] = Field(
        [-2, -1],
        min_length=1,
        description="Tokens to add them at, counted from the end of the statement: -1 is its last.",
    )
    statements: Annotated[int, Field(ge=2), BeforeValidator(as_integer)] = Field(
        100,
        description="Held-out statements of each set, at most; as many true as false ones, from as many entities as possible.",
    )
    template: str = Field(
        "{statement} This statement is:", description="The question: `{statement}` and what follows it."
    )
    answer_true: str = Field(
        " True",
        min_length=1,
        description="What follows for a true statement; one token of the model, its space included.",
    )
    answer_false: str = Field(" False", min_length=1, description="What follows for a false statement; one token.")
    shots: NonNegative = Field(
        4,
        multiple_of=2,
        description="Answered examples before the question, half of them true; from statements that the probes were fitted on.",
    )
    scaling: Literal["projection", "class_distance"] = Field(
        "projection",
        description="`projection`: as far as the class means lie apart along the direction, as published; `class_distance`: as far as they lie "
        "apart at all, the same for every probe, so that one random control serves all.",
    )
    strength: PositiveFloat = Field(1.0, description="Factor of all lengths.")
    random_directions: Annotated[int, Field(ge=50), BeforeValidator(as_integer)] = Field(
        50, description="Random directions for each length, added and subtracted as well: the control."
    )

    @field_validator("template")
    @classmethod
    def _one_place(cls, template: str) -> str:
        if template.count("{statement}") != 1:
            raise ValueError(f": {quoted(template)} must hold '{{statement}}' once")
        return template


class Toy(Strict):
    """Two Gaussians a truth direction apart, with a correlated nuisance direction: every answer is known in closed form."""

    probes: list[names.LabelledKind] = Field(
        [
            "logistic_regression",
            "mass_mean",
            "mass_mean_covariance",
            "shuffled_logistic_regression",
            "logistic_regression_no_bias",
            "mass_mean_pseudo_inverse",
            "random_direction",
            "shuffled_labels",
        ],
        min_length=1,
        description="Probes to fit. `logistic_regression_adamw` has no closed form and takes seconds per draw.",
    )
    d_model: Positive = Field(64, description="Dimensions.")
    points: Positive = Field(50_000, description="Points per draw.")
    draws: Positive = Field(5, description="Independent draws; intervals are over them.")
    nuisance_scale: Float = Field(
        10.0, ge=0, description="Standard deviation s along the nuisance direction v: Sigma = I + s^2 v v'."
    )
    cosine: Float = Field(
        0.7, gt=-1, lt=1, description="Cosine of the nuisance direction with the truth direction theta."
    )
    separation: Float = Field(2.0, gt=0, description="Length of theta, the distance between the class means.")
