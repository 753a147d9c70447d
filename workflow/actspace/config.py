"""The config of a study: its models are the single source of the JSON schema, the defaults and config/README.md.

Strict: an unknown key, a wrong type or a reference to something that does not exist is an error before any job starts. YAML reads `3e-4`
as a string, so numeric strings count as numbers, and 2.0 as the integer 2."""

from __future__ import annotations

import difflib
import itertools
import math
import re
import string
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from actspace.hooks import FINAL_HOOK
from actspace.perturbations import families
from actspace.probes import datasets, names
from actspace.probes.names import Centring, ProbeKind

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
Hook = Annotated[
    str, StringConstraints(pattern=r"^(blocks\.(0|[1-9]\d*)\.hook_resid_(pre|post)|ln_final\.hook_normalized)$")
]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST_LAYERS = 1000


def _number(value: Any) -> Any:
    """Read numeric strings as numbers; booleans are left for the strict type to refuse."""
    number = value
    if isinstance(value, str):
        with suppress(ValueError):
            number = float(value)
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f": found {value!r}; give a finite number")
    return number


def _integer(value: Any) -> Any:
    """Read integral numbers, and strings of them, as integers."""
    if isinstance(value, str):
        with suppress(ValueError):
            return int(value)  # through a float, a long seed would lose its last digits
    number = _number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else value


def _expand(hooks: Any) -> Any:
    """Write out ranges: `blocks.{0..2}.hook_resid_post` stands for three hook points."""
    if not isinstance(hooks, list):
        return hooks
    expanded: list[Any] = []
    for hook in hooks:
        match = RANGE.search(hook) if isinstance(hook, str) else None
        if match is None:
            expanded.append(hook)
            continue
        first, last = int(match[1]), int(match[2])
        if not first <= last < MOST_LAYERS:
            raise ValueError(
                f": the range of '{hook}' holds no layers; write {{first..last}}, the lower one first, both below {MOST_LAYERS}"
            )
        expanded += [RANGE.sub(str(layer), hook, count=1) for layer in range(first, last + 1)]
    return expanded


Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
# Bounds stand before the validator: after it, pydantic leaves them out of the JSON schema.
Positive = Annotated[int, Field(gt=0), BeforeValidator(_integer)]
NonNegative = Annotated[int, Field(ge=0), BeforeValidator(_integer)]
Integer = Annotated[int, BeforeValidator(_integer)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number)]
Base = Annotated[
    str,
    AfterValidator(lambda name: families.parse_base(name, ": ").name),
    WithJsonSchema({"type": "string", "pattern": families.pattern(families.BASES)}),
]
Direction = Annotated[
    str,
    AfterValidator(lambda name: families.parse_direction(name, ": ").name),
    WithJsonSchema({"type": "string", "pattern": families.pattern(families.DIRECTIONS)}),
]
Hooks = Annotated[list[Hook], BeforeValidator(_expand), Field(min_length=1)]
Steps = Annotated[int, Field(ge=31), BeforeValidator(_integer)]


class Strict(BaseModel):
    """Base of all sections: nothing extra, no silent conversion, immutable.

    The text of a validator's ValueError goes on where the key's path ends: `: what is wrong` or `.key: what is wrong`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=False)

    @field_validator("*")
    @classmethod
    def _no_doubles(cls, value: Any) -> Any:
        """Two members of one name would be one file, and count twice in every average."""
        items = [item for item in value if isinstance(item, str | int | float)] if isinstance(value, list) else []
        if twice := [item for i, item in enumerate(items) if item in items[:i]]:
            raise ValueError(f": {twice[0]!r} is there twice; name it once")
        return value


class Package(Strict):
    """A file inside a wheel of the Python package index."""

    kind: Literal["package"]
    name: str = Field(description="Name of the package on the index.")
    version: str = Field(description="Its exact version.")
    sha256: Sha256 = Field(description="SHA-256 of the wheel.")
    member: str = Field(description="Path of the file inside the wheel.")


class PackageText(Package):
    """Text inside a wheel of the Python package index."""

    format: Literal["doc", "lines", "text", "jsonl"] = Field(
        description="How documents are told apart, as in a local file."
    )
    text_column: str = Field("text", description="Column of the text, for `jsonl`.")


class HubModel(Strict):
    """A model on the hub."""

    kind: Literal["hub"]
    repo: str = Field(description="Repository, for example `openai-community/gpt2`.")
    revision: str = Field(description="Commit, tag or branch; pin a commit to reproduce a study.")


class Folder(Strict):
    """A local folder in Hugging Face format with safetensors."""

    kind: Literal["folder"]
    path: str = Field(description="The folder; a relative path starts at the working directory.")


class Gguf(Strict):
    """A local GGUF file; it is converted once."""

    kind: Literal["gguf"]
    path: str = Field(description="The file.")
    sha256: Sha256 = Field(description="SHA-256 of the file.")


class HubText(Strict):
    """Parquet files of a dataset on the hub, read one at a time."""

    kind: Literal["hub"]
    repo: str = Field(description="Dataset repository.")
    revision: str = Field(
        description="Commit, tag or branch (`refs/convert/parquet` for the converted files of script repositories)."
    )
    files: str = Field("**/*.parquet", description="Glob of the files to read, in sorted order.")
    text_column: str = Field("text", description="Column of the text.")


class FileText(Strict):
    """A local file of documents."""

    kind: Literal["file"]
    path: str = Field(description="The file.")
    format: Literal["auto", "jsonl", "parquet", "text", "lines", "doc"] = Field(
        "auto",
        description="`jsonl`, `parquet`, `text` (documents parted by blank lines), `lines` (one a line), `doc` (`<doc>` tags), or by the suffix.",
    )
    text_column: str = Field("text", description="Column of the text, for `jsonl` and `parquet`.")
    sha256: Sha256 | None = Field(None, description="SHA-256 of the file, checked when given.")


class Model(Strict):
    """The language model under study."""

    source: Annotated[HubModel | Folder | Gguf | Package, Field(discriminator="kind")] = Field(
        description="Where the weights come from."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision of the forward passes.")
    gauge: Literal["raw", "centred"] = Field(
        "raw",
        description="`centred` removes the residual stream's mean over d_model; only for models with LayerNorm, whose output it leaves as it is.",
    )
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")


class Compute(Strict):
    """Where and how the model runs."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto` takes a GPU if there is one. Changing it reruns nothing."
    )
    threads: Positive = Field(
        4,
        description="CPU threads of a job that runs a model or trains a dictionary, at most the cores that Snakemake has. "
        "Several jobs with one thread each get more done than one job with several. Changing it reruns nothing.",
    )
    batch_tokens: Positive = Field(8192, description="Tokens per forward pass when caching activations.")
    rows_per_launch: Positive = Field(512, description="Perturbed vectors per forward pass in a sweep.")


class Corpus(Strict):
    """The text: documents from one or several sources, read in order."""

    sources: list[Annotated[HubText | FileText | PackageText, Field(discriminator="kind")]] = Field(
        min_length=1, description="Sources of documents."
    )
    test_fraction: Float = Field(
        0.2, gt=0, lt=1, description="Share of documents held out; a document's side depends on its text alone."
    )


class Tokens(Strict):
    """Token sequences of one length, cut from the corpus; none crosses a document."""

    length: Positive = Field(description="Tokens per sequence, the beginning-of-sequence token included.")
    bos: bool = Field(False, description="Begin each sequence with the tokenizer's beginning-of-sequence token.")
    train: Positive = Field(description="Number of training sequences.")
    test: Positive = Field(description="Number of held-out sequences, from other documents.")
    per_document: Positive | None = Field(None, description="At most so many sequences of one document.")
    shards: Positive = Field(1, le=1000, description="Files, and jobs, per split.")


GeneratedSet = Literal[
    "cities",
    "neg_cities",
    "cities_conj",
    "cities_disj",
    "element_symbols",
    "neg_element_symbols",
    "element_symbols_conj",
    "element_symbols_disj",
    "comparisons",
    "neg_comparisons",
    "comparisons_conj",
    "comparisons_disj",
]


def _published(collection: str) -> Any:
    known = list(datasets.SETS[collection])

    def check(name: str) -> str:
        _known("", name, known, "published set")
        return name

    return Annotated[str, AfterValidator(check), WithJsonSchema({"type": "string", "enum": known})]


class Statements(Strict):
    """True and false statements, for probes. A split holds out what statements speak of, wherever it stands."""

    generated: list[GeneratedSet] = Field(
        default_factory=list,
        description="Built-in sets, generated from fact packages: statements, their negations (`neg_`), conjunctions and disjunctions.",
    )
    per_set: Positive = Field(
        200,
        multiple_of=4,
        description="Statements per built-in set, half of them true; they come in fours, two entities that swap answers. "
        "With conjunctions or disjunctions, whose parts are two such statements, in eights.",
    )
    geometry_of_truth: list[_published("geometry_of_truth")] = Field(  # type: ignore[valid-type]
        default_factory=list, description="Sets of Marks & Tegmark (2023), fetched from their repository."
    )
    truth_is_universal: list[_published("truth_is_universal")] = Field(  # type: ignore[valid-type]
        default_factory=list, description="Sets of Bürger et al. (2024), fetched from their repository."
    )
    files: dict[Name, str] = Field(
        default_factory=dict,
        description="CSV files by set name, as paths or https addresses: columns `statement,label`, and a `topic` if there are several. Pin an "
        "address by a commit in it, or by `#sha256=<sum of the file>` behind it.",
    )
    entity_columns: dict[Name, list[str]] = Field(
        default_factory=dict,
        description="By set name, the columns of a file that name what its statements speak of, several for compound ones; `[statement]` if each is "
        "about something of its own. Without them `group`, `entity`, `city`, `subject` or `country` count, or the form of a published set.",
    )
    contradictions: Literal["refuse", "leave_out"] = Field(
        "refuse", description="What happens to statements that files hold both as true and as false."
    )
    bos: bool = Field(False, description="Begin each statement with the tokenizer's beginning-of-sequence token.")

    @property
    def places(self) -> dict[str, str]:
        """Paths and addresses of all sets that are read from files."""
        collections = {name: getattr(self, name) for name in datasets.SETS}
        return {name: datasets.address(c, name) for c, names in collections.items() for name in names} | self.files

    @property
    def names(self) -> list[str]:
        """Names of all sets."""
        return [*self.generated, *self.places]

    @model_validator(mode="after")
    def _sets(self) -> Statements:
        listed = [*self.generated, *self.geometry_of_truth, *self.truth_is_universal, *self.files]
        if not listed:
            raise ValueError(": no statements; name built-in sets under `generated` or CSV files under `files`")
        if twice := [name for i, name in enumerate(listed) if name in listed[:i]]:
            raise ValueError(f": two sets are named '{twice[0]}'; leave one out, or give a file another name")
        for name in self.entity_columns:
            _known(f".entity_columns.{name}", name, [*self.places], "set from a file")
        if self.per_set % 8 and any(name.endswith(("_conj", "_disj")) for name in self.generated):
            raise ValueError(
                f".per_set: found {self.per_set}; conjunctions and disjunctions come in eights, so give a multiple of 8"
            )
        return self


def _blanks(where: str, template: str) -> list[str]:
    """List the words in braces of a template."""
    try:
        return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ValueError(f"{where}: '{template}' is no template ({error}); write blanks as {{word}}") from None


def _has_blanks(where: str, template: str, wanted: list[str]) -> None:
    if sorted(_blanks(where, template)) != sorted(wanted):
        listed = ", ".join(f"{{{name}}}" for name in wanted)
        raise ValueError(f"{where}: '{template}' must have each of these blanks once, and no other: {listed}")


Words = Annotated[list[Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]], Field(min_length=2)]
Folds = Annotated[int, Field(ge=2), BeforeValidator(_integer)]


class Unions(Strict):
    """Every combination of the words of some parts: is the activation of a union the sum of its parts' effects?"""

    kind: Literal["unions"]
    template: str = Field("the {texture} {colour} {furniture}", description="Phrase, with one blank per part.")
    parts: dict[Name, Words | Literal["tableau"]] = Field(
        {
            "texture": ["soft", "smooth", "rough", "fluffy", "shiny", "dusty", "sticky", "hard"],
            "colour": "tableau",
            "furniture": ["sofa", "chair", "table", "desk", "bed", "shelf", "bench", "stool"],
        },
        min_length=2,
        description="Words by part; `tableau` stands for the ten basic colour words that matplotlib names.",
    )
    folds: Folds = Field(5, description="Every combination is held out once, with n / folds others.")
    bos: bool = Field(False, description="Begin each phrase with the tokenizer's beginning-of-sequence token.")

    @model_validator(mode="after")
    def _template_has_the_parts(self) -> Unions:
        if taken := [part for part in self.parts if part in ("phrase", "mean")]:
            raise ValueError(f".parts: '{taken[0]}' is the name of something else here; rename the part")
        _has_blanks(".template", self.template, list(self.parts))
        return self


class Intensity(Strict):
    """One concept at every grade: does intensity lengthen one direction, or has each grade its own?"""

    kind: Literal["intensity"]
    template: str = Field("it was {grade} {adjective}", description="Phrase, with blanks for grade and adjective.")
    neutral: str = Field("it was {adjective}", description="The phrase without a grade.")
    grades: Annotated[Words, Field(min_length=3)] = Field(
        ["slightly", "fairly", "very", "extremely"], description="Words of grades, from weak to strong."
    )
    adjectives: Words = Field(
        [
            *(
                "cold",
                "warm",
                "hot",
                "big",
                "small",
                "tall",
                "old",
                "young",
                "fast",
                "slow",
                "loud",
                "quiet",
                "bright",
                "dark",
            ),
            *(
                "heavy",
                "light",
                "rich",
                "poor",
                "happy",
                "sad",
                "angry",
                "tired",
                "hungry",
                "strong",
                "weak",
                "clean",
                "dirty",
            ),
            *(
                "soft",
                "hard",
                "dry",
                "wet",
                "busy",
                "calm",
                "dangerous",
                "safe",
                "cheap",
                "expensive",
                "useful",
                "boring",
                "funny",
            ),
        ],
        description="Adjectives; each is held out once.",
    )
    folds: Folds = Field(5, description="Every adjective is held out once, with n / folds others.")
    bos: bool = Field(False, description="Begin each phrase with the tokenizer's beginning-of-sequence token.")

    @model_validator(mode="after")
    def _templates_have_the_blanks(self) -> Intensity:
        _has_blanks(".template", self.template, ["grade", "adjective"])
        _has_blanks(".neutral", self.neutral, ["adjective"])
        if self.folds > len(self.adjectives) // 2:
            raise ValueError(
                f".folds: {self.folds} folds of {len(self.adjectives)} adjectives; give two per fold or more"
            )
        return self


Concept = Annotated[Unions | Intensity, Field(discriminator="kind")]


class Select(Strict):
    """Which rows of a capture are used: a choice made when reading, so changing it captures nothing anew."""

    first_position: NonNegative = Field(
        0, description="Leave out the positions before this one (position 0 is an attention sink)."
    )
    norm_outliers: Float | None = Field(
        None, gt=1, description="Leave out rows whose norm exceeds this multiple of the training rows' median norm."
    )


class EveryNth(Strict):
    """Every n-th position, from position 0 on."""

    every: Positive = Field(description="Distance between stored positions.")


class Capture(Strict):
    """Hook points read in one forward pass that stops after the deepest of them."""

    tokens: Name = Field(description="Name of an entry of `tokens`, `statements` or `concepts`.")
    hooks: Hooks = Field(description="Hook points; `blocks.{0..11}.hook_resid_post` stands for twelve.")
    positions: Literal["all", "last"] | list[int] | EveryNth = Field(
        "all",
        description="Which token positions are stored: all, the last of each sequence, a list (negative ones count from the end), "
        "or `{every: n}` from the first on.",
    )
    storage: Literal["float32", "float16", "bfloat16"] = Field(
        "float16", description="Stored precision; a value that overflows it stops the job."
    )
    weights: Literal["trained", "random"] = Field(
        "trained", description="`random` draws the weights anew: the control that findings come from training."
    )
    revision: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = Field(
        None, description="Another revision of the hub model, a training checkpoint for example; null: the model's own."
    )
    select: Select = Field(Select(), description="Rows to use.")


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

    l0: list[PositiveFloat] = Field(min_length=1, description="Targets of the number of active latents per vector.")
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

    coefficients: list[NonNegativeFloat] = Field(
        min_length=1, description="Weights of the L1 penalty, for vectors of mean norm sqrt(d_model)."
    )
    sparsity_warmup_fraction: Float = Field(
        0.05, ge=0, lt=1, description="Share of the steps over which the penalty rises."
    )


class Given(Strict):
    """An SAE that was trained elsewhere, in the format of SAELens: `cfg.json` and `sae_weights.safetensors`."""

    folder: str = Field(
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
    null_families: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(
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


class CascadeStage(Strict):
    """A probe at a hook point of the capture, fitted on all sets of statements together."""

    probe: str = Field(description="Name of one of the probe study's probes.")
    hook: Hook = Field(description="Hook point; at an early one a forward pass may stop.")


Rate = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False), BeforeValidator(_number)]


class Monitoring(Strict):
    """Cascades: a cheap first probe over all statements, an expensive second one over what the first passes on."""

    first: list[CascadeStage] = Field(
        min_length=1, description="First stages. Passing on at random is added as a control."
    )
    second: list[CascadeStage] = Field(min_length=1, description="Second stages; each is paired with every first one.")
    label: Annotated[int, Field(ge=0, le=1), BeforeValidator(_integer)] = Field(
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
    positions: list[Annotated[int, Field(le=-1), BeforeValidator(_integer)]] = Field(
        [-2, -1],
        min_length=1,
        description="Tokens to add them at, counted from the end of the statement: -1 is its last.",
    )
    statements: Annotated[int, Field(ge=2), BeforeValidator(_integer)] = Field(
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
    random_directions: Annotated[int, Field(ge=50), BeforeValidator(_integer)] = Field(
        50, description="Random directions for each length, added and subtracted as well: the control."
    )

    @field_validator("template")
    @classmethod
    def _one_place(cls, template: str) -> str:
        if template.count("{statement}") != 1:
            raise ValueError(f": {template!r} must hold '{{statement}}' once")
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
    fit: str = Field(description="The fit, as its file is named: `topk-n1024-k16-s0`, `kmeans-k256-s0`.")


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
    resolution: Annotated[int, Field(ge=2), BeforeValidator(_integer)] = Field(
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
    steps: Annotated[int, Field(ge=11), BeforeValidator(_integer)] = Field(
        31, description="Points on a path, both ends included. Finer steps find steeper slopes."
    )
    clusters: Annotated[int, Field(ge=2), BeforeValidator(_integer)] = Field(
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

    resolution: Annotated[int, Field(ge=9), BeforeValidator(_integer)] = Field(
        41, description="Points along each side of the grid, which reaches half the activations' spread beyond them."
    )


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f": {value} steps have no middle; use an odd number")
    return value


Odd = Annotated[int, Field(ge=3), AfterValidator(_odd), BeforeValidator(_integer)]


class Spikes(Strict):
    """Dictionaries read out along segments between held-out activations, and between covariance-random vectors."""

    dictionaries: Name = Field(description="Name of an entry of `dictionaries`.")
    hook: Hook = Field(description="Hook point of that entry.")
    fits: list[str] = Field(
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


class Study(Strict):
    """A study: one file, from text to report."""

    study: Name = Field(description="Name; everything goes to results/<study>/.")
    title: str = Field("", description="Heading of the report.")
    seed: NonNegative = Field(0, description="The only seed; every member derives its own from it and its own name.")
    model: Model = Field(description="The model.")
    compute: Compute = Field(Compute(), description="Device and batch sizes.")
    corpus: Corpus | None = Field(None, description="Needed by `tokens`.")
    tokens: dict[Name, Tokens] = Field(default_factory=dict, description="Sets of token sequences, by name.")
    statements: dict[Name, Statements] = Field(default_factory=dict, description="Sets of statements, by name.")
    concepts: dict[Name, Concept] = Field(
        default_factory=dict,
        description="Phrases made from templates, by name; every capture of them (its `tokens`) is a study of concepts.",
    )
    captures: dict[Name, Capture] = Field(default_factory=dict, description="Captures, by name.")
    dictionaries: dict[Name, Dictionaries] = Field(default_factory=dict, description="Dictionary studies, by name.")
    probes: dict[Name, Probes] = Field(default_factory=dict, description="Probe studies, by name.")
    causal: dict[Name, Causal] = Field(
        default_factory=dict, description="Experiments on the causal effect of probes' directions, by name."
    )
    toy: Toy | None = Field(None, description="The two-Gaussian toy of truth; left out unless given.")
    perturbations: dict[Name, Perturbation] = Field(
        default_factory=dict, description="Perturbation experiments, by name."
    )
    optima: dict[Name, Optima] = Field(default_factory=dict, description="Searches for sensitivity optima, by name.")
    planes: dict[Name, Planes] = Field(default_factory=dict, description="Planes through activations, by name.")
    regions: dict[Name, Regions] = Field(default_factory=dict, description="Studies of activation regions, by name.")
    spikes: dict[Name, Spikes] = Field(
        default_factory=dict, description="Studies of the space between activations, by name."
    )
    toy_superposition: ToySuperposition | None = Field(
        None, description="The toy of superposition, read out as `spikes` are; left out unless given."
    )

    @field_validator("captures")
    @classmethod
    def _captures_have_tokens(cls, captures: dict[str, Capture], info: ValidationInfo) -> dict[str, Capture]:
        sections = ("tokens", "statements", "concepts")
        if not {*sections} <= info.data.keys():  # a mistake in there has its own line
            return captures
        known = [name for section in sections for name in info.data[section]]
        for name, capture in captures.items():
            _known(f".{name}.tokens", capture.tokens, known, "entry of `tokens`, `statements` or `concepts`")
            if capture.revision and capture.weights == "random":
                raise ValueError(f".{name}.revision: weights drawn anew are of no revision; leave out one of the two")
        return captures

    @model_validator(mode="after")
    def _references(self) -> Study:
        if self.tokens and self.corpus is None:
            raise ValueError(".corpus: missing; `tokens` needs text")
        if both := sorted(set(self.tokens) & set(self.statements)):
            raise ValueError(f".statements.{both[0]}: this name is taken by an entry of `tokens`; rename one")
        for name in self.concepts:
            _is_captured(self, f".concepts.{name}", name)
        for name, member in self.dictionaries.items():
            _from_tokens(
                self,
                f".dictionaries.{name}",
                member.capture,
                {f"hooks[{i}]": hook for i, hook in enumerate(member.hooks)},
            )
            if member.untrained is not None:
                _is_untrained(self, f".dictionaries.{name}.untrained", member)
            _has_test_sequences(self, f".dictionaries.{name}.splice_sequences", member.capture, member.splice_sequences)
            _can_be_replaced(f".dictionaries.{name}.splice_sequences", member.hooks if member.splice_sequences else [])
        for name, probe in self.probes.items():
            _known(
                f".probes.{name}.capture",
                probe.capture,
                [c for c, v in self.captures.items() if v.tokens in self.statements],
                "capture of statements",
            )
            _stores_of_each(self, f".probes.{name}.position", probe)
            _has_negations(self, f".probes.{name}", probe)
            _has_stages(self, f".probes.{name}.monitoring", probe)
            if probe.pictured:
                hooks = self.captures[probe.capture].hooks
                _known(f".probes.{name}.pictured", probe.pictured, hooks, f"hook of the capture '{probe.capture}'")
        for name, causal in self.causal.items():
            _has_probes(self, f".causal.{name}", causal)
        for name, capture in self.captures.items():
            if capture.revision and self.model.source.kind != "hub":
                raise ValueError(
                    f".captures.{name}.revision: the model is no repository on the hub; leave it out, or make a study of that checkpoint"
                )
        for where, experiment in experiments(self).items():
            sites = {f"sites[{i}]": hook for i, hook in enumerate(experiment.sites)}
            _from_tokens(self, f".{where}", experiment.capture, sites)
            _can_be_replaced(f".{where}.sites", experiment.sites)
            _stores_position(self, f".{where}.position", experiment)
            _has_test_sequences(self, f".{where}.prompts", experiment.capture, experiment.prompts)
        for name, perturbation in self.perturbations.items():
            _fitted_at_sites(self, f".perturbations.{name}", perturbation)
        for name, region in self.regions.items():
            if region.cells is not None:
                where = f".regions.{name}.cells"
                _known(f"{where}.study", region.cells.study, [*self.dictionaries], "entry of `dictionaries`")
                _shares_a_hook(f"{where}.study", region, self.dictionaries[region.cells.study].hooks)
        for name, spike in self.spikes.items():
            where = f".spikes.{name}"
            if name == "toy_superposition":
                raise ValueError(f"{where}: this name is the toy's; choose another")
            _known(f"{where}.dictionaries", spike.dictionaries, [*self.dictionaries], "entry of `dictionaries`")
            hooks = self.dictionaries[spike.dictionaries].hooks
            _known(f"{where}.hook", spike.hook, hooks, f"hook of `dictionaries.{spike.dictionaries}`")
        return self


def experiments(study: Study) -> dict[str, Experiment]:
    """List all experiments that perturb, by their place in the config."""
    names = ("perturbations", "optima", "planes", "regions")
    sections: dict[str, dict[str, Any]] = {name: getattr(study, name) for name in names}
    return {f"{section}.{name}": member for section, members in sections.items() for name, member in members.items()}


def stored_positions(positions: Any, length: int) -> range | set[int]:
    """Say which positions of a sequence of `length` tokens a capture stores, given its `positions`."""
    if positions == "all" or isinstance(positions, EveryNth):
        return range(0, length, positions.every if isinstance(positions, EveryNth) else 1)
    wanted = [-1] if positions == "last" else positions
    return {place + length if place < 0 else place for place in wanted} & set(range(length))


def _known(where: str, name: str, known: list[str], what: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"{where}: there is no {what} named '{name}'; there are: {', '.join(known) or 'none'}{hint}")


def _stores_position(study: Study, where: str, experiment: Experiment) -> None:
    capture = study.captures[experiment.capture]
    length = study.tokens[capture.tokens].length
    position = length - 1 if experiment.position == "last" else experiment.position
    if position not in stored_positions(capture.positions, length):
        raise ValueError(
            f"{where}: '{experiment.capture}' does not store position {position} of {length}; add it to its `positions`, or give another capture"
        )


def _shares_a_hook(where: str, region: Regions, hooks: list[str]) -> None:
    if not set(region.sites) & set(hooks):
        raise ValueError(
            f"{where}: fitted at {', '.join(hooks)}, which is none of `sites`; add it there, or leave this out"
        )


def _stores_of_each(study: Study, where: str, probe: Probes) -> None:
    """Check that a capture stores the probe's position of statements of any length."""
    positions = study.captures[probe.capture].positions
    wanted = -1 if probe.position == "last" else probe.position
    stored = [-1] if positions == "last" else positions
    every = positions.every if isinstance(positions, EveryNth) else 1
    known = wanted in stored if isinstance(stored, list) else every == 1 or (wanted >= 0 and wanted % every == 0)
    if not known:
        raise ValueError(
            f"{where}: '{probe.capture}' does not store position {probe.position} of each statement; add it to its `positions`, "
            "counted in the same way, or give another capture"
        )


def _is_captured(study: Study, where: str, concept: str) -> None:
    """Check that a set of phrases has a name of its own and is read, at its last tokens."""
    if concept in (*study.tokens, *study.statements):
        raise ValueError(f"{where}: this name is taken by an entry of `tokens` or `statements`; rename one")
    captures = [name for name, capture in study.captures.items() if capture.tokens == concept]
    if not captures:
        raise ValueError(f"{where}: no capture reads it; add one with `tokens: {concept}` and `positions: last`")
    for name in captures:
        if study.captures[name].positions != "last":
            raise ValueError(
                f".captures.{name}.positions: '{name}' stores all positions; phrases are read at their last one, so give `positions: last`"
            )


def _can_be_replaced(where: str, hooks: list[str]) -> None:
    if FINAL_HOOK in hooks:
        raise ValueError(
            f"{where}: a value at '{FINAL_HOOK}' cannot take the residual's place; choose another hook point"
        )


def _has_test_sequences(study: Study, where: str, capture: str, wanted: int) -> None:
    tokens = study.captures[capture].tokens
    if wanted > study.tokens[tokens].test:
        raise ValueError(
            f"{where}: {wanted}, but tokens.{tokens}.test is {study.tokens[tokens].test}; lower the one or raise the other"
        )


def _is_untrained(study: Study, where: str, member: Dictionaries) -> None:
    """Check that a dictionary study's null reads the same tokens and hooks of a model with random weights."""
    tokens, hooks = study.captures[member.capture].tokens, set(member.hooks)
    fit = [
        name
        for name, capture in study.captures.items()
        if capture.weights == "random" and capture.tokens == tokens and hooks <= set(capture.hooks)
    ]
    what = f"capture with `weights: random` of the tokens '{tokens}' and all hooks of this member"
    _known(where, str(member.untrained), fit, what)


def _from_tokens(study: Study, where: str, capture: str, hooks: dict[str, str]) -> None:
    """Check that a member's capture reads corpus tokens and has the member's hooks."""
    _known(
        f"{where}.capture",
        capture,
        [name for name, value in study.captures.items() if value.tokens in study.tokens],
        "capture of corpus tokens",
    )
    for key, hook in hooks.items():
        _known(f"{where}.{key}", hook, study.captures[capture].hooks, f"hook of the capture '{capture}'")


def _has_negations(study: Study, where: str, member: Probes) -> None:
    """Check that the statements have a set and its negation if a probe needs them."""
    statements = study.statements[study.captures[member.capture].tokens]
    known = {*statements.names}
    negated = {name for name in known if name.startswith(names.NEGATED)}
    for i, kind in enumerate(member.probes):
        about = names.KINDS[kind]
        if about.pairs and not any(name.removeprefix(names.NEGATED) in known for name in negated):
            raise ValueError(
                f"{where}.probes[{i}]: '{kind}' needs a set of statements and its negation, as cities and neg_cities; add one, or leave the probe out"
            )
        if about.polarities and (not negated or negated == known):
            raise ValueError(
                f"{where}.probes[{i}]: '{kind}' needs affirmative sets and negated ones (`neg_<set>`); add one, or leave the probe out"
            )


def _has_probes(study: Study, where: str, member: Causal) -> None:
    """Check that an experiment's probes, sets of statements and hook points are those of its probe study."""
    _known(f"{where}.probes", member.probes, [*study.probes], "entry of `probes`")
    probes = study.probes[member.probes]
    capture = study.captures[probes.capture]
    for i, fit in enumerate(member.fits or []):
        _known(f"{where}.fits[{i}]", fit, probes.fits, f"probe of `probes.{member.probes}`")
    statements = study.statements[capture.tokens]
    sets, what = statements.names, f"set of statements.{capture.tokens}"
    for i, name in enumerate(member.sets or []):
        _known(f"{where}.sets[{i}]", name, sets, what)
    _known(f"{where}.train_set", member.train_set, ["all", *sets], what)
    for i, hook in enumerate(member.hooks):
        _known(f"{where}.hooks[{i}]", hook, capture.hooks, f"hook of the capture '{probes.capture}'")
    _can_be_replaced(f"{where}.hooks", member.hooks)


def _has_stages(study: Study, where: str, member: Probes) -> None:
    """Check that the stages of cascades are probes that were fitted, and may be used on an input by itself."""
    sections = (
        {} if member.monitoring is None else {"first": member.monitoring.first, "second": member.monitoring.second}
    )
    for at, stage in (
        (f"{where}.{key}[{i}]", stage) for key, stages in sections.items() for i, stage in enumerate(stages)
    ):
        _known(f"{at}.probe", stage.probe, member.fits, "probe of this study")
        hooks = study.captures[member.capture].hooks
        _known(f"{at}.hook", stage.hook, hooks, f"hook of the capture '{member.capture}'")
        if names.parse(stage.probe).centring == "per_dataset":
            raise ValueError(
                f"{at}.probe: '{stage.probe}' takes off the mean of a set, and an input that is monitored is of none; give another centring"
            )
        if stage.hook == FINAL_HOOK:
            raise ValueError(
                f"{at}.hook: what is run up to '{FINAL_HOOK}' is not told by its name; give the last block's hook_resid_post"
            )


def _fitted_at_sites(study: Study, where: str, experiment: Perturbation) -> None:
    """Check that what bases and directions are made from was fitted at every site; fits have their names from `stages`."""
    places: dict[str, list[str]] = {}
    for key in (families.DICTIONARY, families.CLUSTERS):
        if (fit := getattr(experiment, key)) is not None:
            _known(f"{where}.{key}.study", fit.study, [*study.dictionaries], "entry of `dictionaries`")
            places[f"dictionaries.{fit.study}"] = study.dictionaries[fit.study].hooks
    if (probe := experiment.probe) is not None:
        _known(f"{where}.probe", probe, [*study.probes], "entry of `probes`")
        places[f"probes.{probe}"] = study.captures[study.probes[probe].capture].hooks
        for i, family in enumerate(map(families.parse_direction, experiment.directions)):
            if family.probe:
                _known(
                    f"{where}.directions[{i}]",
                    family.probe,
                    study.probes[probe].fits,
                    f"probe of `probes.{probe}`",
                )
    for place, hooks in places.items():
        for i, site in enumerate(experiment.sites):
            _known(f"{where}.sites[{i}]", site, hooks, f"hook of `{place}`")
