"""Sections on what a study reads: model, text, statements, phrases, and the captures of their activations."""

from __future__ import annotations

import string
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator

from actspace.config.fields import (
    Float,
    Hooks,
    Integer,
    Name,
    NonNegative,
    Path,
    Place,
    Positive,
    Sha256,
    Strict,
    as_integer,
    quoted,
    require_known,
)
from actspace.probes import datasets


class Package(Strict):
    """A file inside a wheel of the Python package index."""

    kind: Literal["package"]
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=100)] = (
        Field(description="Name of the package on the index.")
    )
    version: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+!_-]*$", max_length=50)] = Field(
        description="Its exact version."
    )
    sha256: Sha256 = Field(description="SHA-256 of the wheel.")
    member: Path = Field(description="Path of the file inside the wheel.")


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
    path: Path = Field(description="The folder; a relative path starts at the working directory.")


class Gguf(Strict):
    """A local GGUF file; it is converted once."""

    kind: Literal["gguf"]
    path: Path = Field(description="The file.")
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
    path: Path = Field(description="The file.")
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
    shards: Positive = Field(1, le=10_000, description="Files, and jobs, per split.")


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
        require_known("", name, known, "published set")
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
    files: dict[Name, Place] = Field(
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
            require_known(f".entity_columns.{name}", name, [*self.places], "set from a file")
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
        raise ValueError(f"{where}: {quoted(template)} is no template ({error}); write blanks as {{word}}") from None


def _has_blanks(where: str, template: str, wanted: list[str]) -> None:
    if sorted(_blanks(where, template)) != sorted(wanted):
        listed = ", ".join(f"{{{name}}}" for name in wanted)
        raise ValueError(f"{where}: {quoted(template)} must have each of these blanks once, and no other: {listed}")


Words = Annotated[list[Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]], Field(min_length=2)]
Folds = Annotated[int, Field(ge=2), BeforeValidator(as_integer)]


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
            raise ValueError(f".parts: {quoted(taken[0])} is the name of something else here; rename the part")
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
    positions: Literal["all", "last"] | list[Integer] | EveryNth = Field(
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
    revision: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] | None = Field(
        None, description="Another revision of the hub model, a training checkpoint for example; null: the model's own."
    )
    select: Select = Field(Select(), description="Rows to use.")


def stored_positions(positions: Any, length: int) -> range | set[int]:
    """Say which positions of a sequence of `length` tokens a capture stores, given its `positions`."""
    if positions == "all" or isinstance(positions, EveryNth):
        return range(0, length, positions.every if isinstance(positions, EveryNth) else 1)
    wanted = [-1] if positions == "last" else positions
    return {place + length if place < 0 else place for place in wanted if -length <= place < length}
