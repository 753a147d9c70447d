"""The section `dictionaries`: k-means, principal components, sparse autoencoders, and what stands beside them."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from actspace.config.fields import Float, Hooks, Name, NamedFloat, NonNegative, Path, Positive, PositiveFloat, Strict


class KMeans(Strict):
    """k-means: one active latent per vector. One fit serves the first three variants, read out in another way."""

    sizes: list[Positive] = Field(min_length=1, description="Numbers of centroids K.")
    seeds: list[NonNegative] = Field([0], min_length=1, description="One fit per size and seed.")
    variants: list[Literal["centroid", "unit", "nearest", "spherical"]] = Field(
        ["centroid"],
        min_length=1,
        description="`centroid`: the nearest one; `unit`: the largest projection on a direction from the mean to a "
        "centroid; `nearest`: the projection on that of the nearest centroid; `spherical`: clusters of directions.",
    )
    pca_prefix: list[NonNegative] = Field(
        [0],
        min_length=1,
        description="Numbers of leading principal components that are kept exactly; what they leave is clustered.",
    )
    max_iterations: Positive = Field(100, description="Lloyd iterations at most.")
    tolerance: Float = Field(
        1e-4, ge=0, description="Stop when the centroids move by less than this, relative to the variance of the data."
    )

    @model_validator(mode="after")
    def _centroids_to_read_out(self) -> KMeans:
        if "centroid" not in self.variants and {"unit", "nearest"} & {*self.variants}:
            raise ValueError(".variants: `unit` and `nearest` read the fit of `centroid` out; add it to the list")
        return self


class Pca(Strict):
    """Principal components around the mean."""

    ranks: list[Positive] = Field(min_length=1, description="Numbers of components kept.")


class RandomPoints(Strict):
    """Random data points in the place of centroids: what k-means must beat."""

    sizes: list[Positive] = Field(min_length=1, description="Numbers of points.")
    seeds: list[NonNegative] = Field([0], min_length=1, description="One draw per size and seed.")


class RandomDirections(Strict):
    """A TopK SAE of random unit vectors: what training must beat."""

    latents: list[Positive] = Field(min_length=1, description="Numbers of directions.")
    k: list[Positive] = Field(min_length=1, description="Active directions per vector.")
    seeds: list[NonNegative] = Field([0], min_length=1, description="One draw per setting and seed.")

    @model_validator(mode="after")
    def _as_many_latents_as_are_active(self) -> RandomDirections:
        if max(self.k) > min(self.latents):
            raise ValueError(f".k: {max(self.k)} of {min(self.latents)} directions; lower k or raise latents")
        return self


class SaeTraining(Strict):
    """Training settings that the SAE architectures share."""

    latents: list[Positive] = Field(min_length=1, description="Dictionary sizes.")
    seeds: list[NonNegative] = Field([0], min_length=1, description="One fit per setting and seed.")
    vectors: Positive = Field(description="Vectors to train on, over as many epochs as that takes.")
    batch_size: Positive = Field(2048, description="Vectors per step.")
    learning_rate: PositiveFloat | None = Field(
        None, description="Peak learning rate of Adam; null: 2e-4 / sqrt(latents / 2**14), at most 1e-3."
    )
    warmup_fraction: Float = Field(
        0.05, ge=0, lt=1, description="Share of the steps over which the learning rate rises."
    )


class TopK(SaeTraining):
    """TopK SAE: exactly k latents per vector, dead ones revived by the auxiliary loss."""

    k: list[Positive] = Field(min_length=1, description="Active latents per vector.")
    aux_coefficient: Float = Field(1 / 32, ge=0, description="Weight of the auxiliary loss of dead latents.")
    dead_after_vectors: Positive | None = Field(
        None,
        description="A latent is dead once it was silent for so many vectors; null: a tenth of `vectors`, at most 10 million.",
    )

    @model_validator(mode="after")
    def _as_many_latents_as_are_active(self) -> TopK:
        if max(self.k) > min(self.latents):
            raise ValueError(
                f".k: {max(self.k)} active latents, but a dictionary of `latents` has {min(self.latents)}; lower k or raise latents"
            )
        return self


class BatchTopK(TopK):
    """BatchTopK SAE: k latents per vector on average over the batch; one threshold takes the batch's place afterwards."""


class Matryoshka(TopK):
    """Matryoshka BatchTopK SAE: nested prefixes of the latents reconstruct by themselves."""

    prefixes: list[PositiveFloat] = Field(
        [1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0],
        min_length=1,
        description="Shares of the latents in each prefix, rising to 1.",
    )

    @model_validator(mode="after")
    def _prefixes_end_with_all(self) -> Matryoshka:
        if self.prefixes[-1] != 1 or any(a >= b for a, b in itertools.pairwise(self.prefixes)):
            raise ValueError(f".prefixes: found {self.prefixes}; shares of the latents must rise, the last to 1")
        return self


class JumpReLU(SaeTraining):
    """JumpReLU SAE: a threshold for each latent, learned under a penalty (L0 / target - 1)^2."""

    l0: list[Annotated[NamedFloat, Field(gt=0)]] = Field(
        min_length=1, description="Targets of the number of active latents per vector."
    )
    l0_coefficient: PositiveFloat = Field(1.0, description="Weight of the penalty against the unexplained variance.")
    bandwidth: PositiveFloat = Field(
        0.05, description="Of the straight-through estimators, for vectors of mean norm sqrt(d_model)."
    )
    sparsity_warmup_fraction: Float = Field(
        0.05, ge=0, lt=1, description="Share of the steps over which the penalty rises."
    )

    @model_validator(mode="after")
    def _as_many_latents_as_are_wanted(self) -> JumpReLU:
        if max(self.l0) > min(self.latents):
            raise ValueError(
                f".l0: {max(self.l0):g} active latents, but a dictionary of `latents` has {min(self.latents)}; lower l0 or raise latents"
            )
        return self


class L1(SaeTraining):
    """Standard SAE: ReLU latents under an L1 penalty."""

    coefficients: list[NamedFloat] = Field(
        min_length=1, description="Weights of the L1 penalty, for vectors of mean norm sqrt(d_model)."
    )
    sparsity_warmup_fraction: Float = Field(
        0.05, ge=0, lt=1, description="Share of the steps over which the penalty rises."
    )


class Given(Strict):
    """An SAE that was trained elsewhere, in the format of SAELens: `cfg.json` and `sae_weights.safetensors`."""

    folder: Path = Field(
        description="Its folder, local or inside the repository (`.`: the repository itself); `{hook}` in it stands for the hook point."
    )
    repo: str | None = Field(None, description="Repository on the hub; null: the folder is a local one.")
    revision: str | None = Field(None, description="Commit, tag or branch of the repository; pin a commit.")

    @model_validator(mode="after")
    def _pinned(self) -> Given:
        if (self.repo is None) != (self.revision is None):
            absent, other = ("revision", "repo") if self.revision is None else ("repo", "revision")
            raise ValueError(f".{absent}: missing; `{other}` is given, and an SAE on the hub needs both")
        return self


class Dictionaries(Strict):
    """Dictionaries fitted to some hook points of one capture, all measured on its held-out documents."""

    capture: Name = Field(description="Name of a capture of corpus tokens.")
    hooks: Hooks = Field(description="Hook points of that capture.")
    kmeans: KMeans | None = Field(None, description="k-means.")
    pca: Pca | None = Field(None, description="Principal components.")
    topk: TopK | None = Field(None, description="TopK SAEs.")
    batch_topk: BatchTopK | None = Field(None, description="BatchTopK SAEs.")
    matryoshka: Matryoshka | None = Field(None, description="Matryoshka BatchTopK SAEs.")
    jumprelu: JumpReLU | None = Field(None, description="JumpReLU SAEs.")
    l1: L1 | None = Field(None, description="Standard L1 SAEs.")
    random_points: RandomPoints | None = Field(None, description="Null of k-means: random data points as centroids.")
    token_identity: bool = Field(
        False, description="Null of k-means: the mean activation of each token as its centroid, by the row's token."
    )
    random_directions: RandomDirections | None = Field(None, description="Null of SAEs: random directions.")
    given: dict[Name, Given] = Field(
        default_factory=dict,
        description="SAEs that were trained elsewhere, by name; `given-<name>` is the fit. They are measured on real data alone.",
    )
    nulls: list[Literal["gaussian", "shuffled"]] = Field(
        ["gaussian"],
        description="Data without structure under every method: `gaussian` has the data's mean and covariance, "
        "`shuffled` each dimension's values in a random order of their own.",
    )
    untrained: Name | None = Field(
        None,
        description="Another null of data: a capture of the same tokens and hooks with `weights: random`.",
    )
    null_families: dict[str, Annotated[list[Name], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Families of dictionaries, as the names of their fits begin (`kmeans`, `topk`), that alone are fitted to a null "
        "of data; to nulls that are not listed here, every family is.",
    )
    splice_sequences: NonNegative = Field(
        0, description="Held-out sequences run with the reconstruction in place of the activation; 0 for none."
    )

    @model_validator(mode="after")
    def _a_folder_for_each_hook(self) -> Dictionaries:
        for name, given in self.given.items():
            if len(self.hooks) > 1 and "{hook}" not in given.folder:
                raise ValueError(
                    f".given.{name}.folder: one SAE for {len(self.hooks)} hook points; write `{{hook}}` where their folders differ, "
                    "or make a dictionary study of one hook point for it"
                )
        return self
