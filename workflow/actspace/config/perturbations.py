"""Sections on experiments that perturb activations, and on the space between them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from actspace.config.fields import (
    Base,
    Direction,
    FitName,
    Float,
    Hook,
    Hooks,
    Name,
    NonNegative,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Steps,
    Strict,
    as_integer,
)
from actspace.perturbations import families


class Experiment(Strict):
    """What all experiments share that perturb the residual stream at one position and read what the model does there."""

    capture: Name = Field(
        description="Name of a capture of corpus tokens; its training rows give targets, mean and covariance, its test rows the bases."
    )
    sites: Hooks = Field(description="Hook points of that capture to perturb, each by itself.")
    position: Literal["last"] | NonNegative = Field(
        "last",
        description="Perturbed position, which the capture must store. A prompt ends there: the model's output is read at the same position.",
    )
    read: Hook = Field(description="Hook point at or after all sites for L2 distance and cosine.")
    prompts: Positive = Field(description="Base prompts, of the test split; from as many documents as possible.")


class Fit(Strict):
    """One fit of a dictionary study, to the real data at the perturbed site."""

    study: Name = Field(
        description="Name of an entry of `dictionaries` that has all perturbed sites among its hooks; for `cells`, some of them."
    )
    fit: FitName = Field(description="The fit, as its file is named: `topk-n1024-k16-s0`, `kmeans-k256-s0`.")


class Perturbation(Experiment):
    """A sweep: walk from every base into every direction along every path."""

    bases: list[Base] = Field(
        min_length=1,
        description=f"What is perturbed: `{families.forms(families.BASES, '`, `')}`; `_x<m>` stands for m latents at once.",
    )
    directions: list[Direction] = Field(
        min_length=1,
        description=f"Where to: `{families.forms(families.DIRECTIONS, '`, `')}`; "
        "`<name>` is one of the probe study's probes, `minus_` turns a direction round, `_x<m>` adds m latents up.",
    )
    dictionary: Fit | None = Field(
        None, description="A sparse autoencoder, for bases and directions that are made from its latents."
    )
    clusters: Fit | None = Field(None, description="A k-means fit, for `cluster_difference`.")
    probe: Name | None = Field(
        None, description="Name of an entry of `probes` whose capture has all perturbed sites, for `probe_<name>`."
    )
    paths: list[Literal["straight", "absolute", "interpolate", "sphere"]] = Field(
        ["sphere"],
        min_length=1,
        description="`sphere`: 0 to 180 degrees at constant norm; `straight`: as far as the base's norm; `absolute`: as far as `length`; "
        "`interpolate`: as far as the target, for directions towards one (`toward_*`, `reconstruction_error`).",
    )
    length: PositiveFloat | None = Field(
        None,
        description="End of the `absolute` path; null: twice the root mean square distance of two real activations.",
    )
    draws: Positive = Field(4, description="Directions per prompt and family.")
    steps: Steps = Field(
        31, description="Points on a path, the undisturbed base included; 31 make 6 degrees on the sphere."
    )
    jensen_shannon: bool = Field(
        False, description="Measure the Jensen-Shannon divergence too; a sweep then takes longer."
    )
    thresholds_nats: list[PositiveFloat] = Field(
        [0.5], min_length=1, description="KL divergences whose first crossing is the end of a plateau."
    )

    @model_validator(mode="after")
    def _targets(self) -> Perturbation:
        free = [name for name in self.directions if not families.parse_direction(name).targeted]
        if "interpolate" in self.paths and free:
            raise ValueError(
                f".paths: `interpolate` ends at a target, and '{free[0]}' has none; leave out one of them, or part the experiment in two"
            )
        return self

    @model_validator(mode="after")
    def _fits_that_names_need(self) -> Perturbation:
        needed = families.sources(self.bases, self.directions)
        for key, what in families.SOURCES.items():
            given = getattr(self, key) is not None
            if key in needed and not given:
                raise ValueError(f".{key}: missing; '{needed[key]}' is made from {what}, so name one here")
            if given and key not in needed:
                raise ValueError(
                    f".{key}: nothing here is made from {what}; leave it out, or add a base or direction that is"
                )
        return self


class Subspaces(Strict):
    """Is a direction an optimum in random subspaces of growing dimension? A step down the gradient of the crossing tells."""

    prompts: Positive = Field(description="Base prompts, the first of the experiment's.")
    draws: Positive = Field(1, description="Directions per prompt and family.")
    dimensions: list[Positive] = Field([1, 2, 4, 8, 16], min_length=1, description="Dimensions of the subspaces.")
    angle_deg: Float = Field(
        20.0, gt=0, lt=90, description="Angle between a direction and those beside it, and of the step."
    )


class Optima(Experiment):
    """Sensitivity optima: threshold angles over triangles of directions, on the sphere from real activations."""

    kinds: list[Literal["toward", "mixture"]] = Field(
        ["toward", "mixture"],
        min_length=1,
        description="`toward`: targets are interpolated and the base is taken away, as published; `mixture`: differences of two targets are, "
        "which do not contain the base.",
    )
    draws: Positive = Field(
        1, description="Triangles per prompt and kind, each with a real and with a random first corner."
    )
    resolution: Annotated[int, Field(ge=2), BeforeValidator(as_integer)] = Field(
        8, description="Steps along an edge of a triangle; n make (n + 1)(n + 2)/2 directions."
    )
    steps: Steps = Field(31, description="Points on the path from 0 to 180 degrees on which a crossing is sought.")
    thresholds_nats: list[PositiveFloat] = Field(
        [0.5], min_length=1, description="KL divergences whose first crossing is measured."
    )
    subspaces: Subspaces | None = Field(None, description="Random subspaces around directions; left out unless given.")

    @model_validator(mode="after")
    def _of_its_prompts(self) -> Optima:
        if self.subspaces and self.subspaces.prompts > self.prompts:
            raise ValueError(
                f".subspaces.prompts: {self.subspaces.prompts}, but the experiment has {self.prompts}; lower the one or raise the other"
            )
        return self


class Regions(Experiment):
    """Walk from the activation of one prompt to that of another, and see which region the output is in.

    `prompts` are all that there is: each is walked from, to others of them, and their outputs make the regions.
    """

    pairs: Positive = Field(1, description="Other prompts that each prompt is walked to.")
    steps: Annotated[int, Field(ge=11), BeforeValidator(as_integer)] = Field(
        31, description="Points on a path, both ends included. Finer steps find steeper slopes."
    )
    clusters: Annotated[int, Field(ge=2), BeforeValidator(as_integer)] = Field(
        8, description="Regions: clusters of the outputs of the undisturbed prompts at `read`."
    )
    cells: Fit | None = Field(
        None, description="k-means fit whose cells are looked up along the paths, at those sites that it was made at."
    )

    @model_validator(mode="after")
    def _fewer_clusters_than_prompts(self) -> Regions:
        if self.clusters >= self.prompts:
            raise ValueError(
                f".clusters: {self.clusters} regions of {self.prompts} prompts; lower it or raise `prompts`"
            )
        return self


class Planes(Experiment):
    """The plane through the activations of a prompt and of two others: the output at every point of a grid."""

    resolution: Annotated[int, Field(ge=9), BeforeValidator(as_integer)] = Field(
        41, description="Points along each side of the grid, which reaches half the activations' spread beyond them."
    )


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f": {value} steps have no middle; use an odd number")
    return value


Odd = Annotated[int, Field(ge=3), AfterValidator(_odd), BeforeValidator(as_integer)]


class Spikes(Strict):
    """Dictionaries read out along segments between held-out activations, and between covariance-random vectors."""

    dictionaries: Name = Field(description="Name of an entry of `dictionaries`.")
    hook: Hook = Field(description="Hook point of that entry.")
    fits: list[FitName] = Field(
        min_length=1,
        description="Its fits, as their files are named: `topk-n1024-k16-s0`. A linear one (`pca-r64`) is the control.",
    )
    pairs: Positive = Field(200, description="Pairs of each kind; real ones are of two documents.")
    steps: Odd = Field(
        21, description="Points on a segment, both ends included; an odd number, so that one is the middle."
    )


class ToySuperposition(Strict):
    """Sparse sums of known directions, and the same read-outs of the true dictionary: a spiky space whose answer is known."""

    d_model: Positive = Field(512, description="Dimensions.")
    features: list[Positive] = Field(
        [512, 2048],
        min_length=1,
        description="Numbers of feature directions; orthonormal up to `d_model`, random above.",
    )
    active: PositiveFloat = Field(6.0, description="How many features are active on average.")
    values: Literal["uniform", "exponential"] = Field(
        "uniform", description="Sizes of active features: on [0, 1], or with mean 1."
    )
    threshold: NonNegativeFloat = Field(0.2, description="Projections up to this size are inactive.")
    k: Positive = Field(8, description="Active latents of the TopK encoder.")
    pairs: Positive = Field(200, description="Pairs of each kind.")
    steps: Odd = Field(21, description="Points on a segment, both ends included; an odd number.")

    @model_validator(mode="after")
    def _as_many_features_as_are_active(self) -> ToySuperposition:
        fewest = min(self.features)
        for key, wanted in (("active", self.active), ("k", self.k)):
            if wanted > fewest:
                raise ValueError(f".{key}: {wanted:g}, but there are {fewest} features; lower it")
        return self
