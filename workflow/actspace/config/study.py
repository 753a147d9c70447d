"""A whole study, and the checks of what one section says of another."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from actspace.config.archive import Archive
from actspace.config.dictionaries import Dictionaries
from actspace.config.fields import Name, NonNegative, Strict, require_known
from actspace.config.inputs import (
    Capture,
    Compute,
    Concept,
    Corpus,
    EveryNth,
    Model,
    Statements,
    Tokens,
    stored_positions,
)
from actspace.config.perturbations import Experiment, Optima, Perturbation, Planes, Regions, Spikes, ToySuperposition
from actspace.config.probes import Causal, Probes, Toy
from actspace.hooks import FINAL_HOOK
from actspace.perturbations import families
from actspace.probes import names


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
    archive: Archive = Field(Archive(), description="The archive of the study.")

    @field_validator("captures")
    @classmethod
    def _captures_have_tokens(cls, captures: dict[str, Capture], info: ValidationInfo) -> dict[str, Capture]:
        sections = ("tokens", "statements", "concepts")
        if not {*sections} <= info.data.keys():  # a mistake in there has its own line
            return captures
        known = [name for section in sections for name in info.data[section]]
        for name, capture in captures.items():
            require_known(f".{name}.tokens", capture.tokens, known, "entry of `tokens`, `statements` or `concepts`")
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
            require_known(
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
                require_known(
                    f".probes.{name}.pictured", probe.pictured, hooks, f"hook of the capture '{probe.capture}'"
                )
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
                require_known(f"{where}.study", region.cells.study, [*self.dictionaries], "entry of `dictionaries`")
                _shares_a_hook(f"{where}.study", region, self.dictionaries[region.cells.study].hooks)
        for name, spike in self.spikes.items():
            where = f".spikes.{name}"
            if name == "toy_superposition":
                raise ValueError(f"{where}: this name is the toy's; choose another")
            require_known(f"{where}.dictionaries", spike.dictionaries, [*self.dictionaries], "entry of `dictionaries`")
            hooks = self.dictionaries[spike.dictionaries].hooks
            require_known(f"{where}.hook", spike.hook, hooks, f"hook of `dictionaries.{spike.dictionaries}`")
        return self


def experiments(study: Study) -> dict[str, Experiment]:
    """List all experiments that perturb, by their place in the config."""
    names = ("perturbations", "optima", "planes", "regions")
    sections: dict[str, dict[str, Any]] = {name: getattr(study, name) for name in names}
    return {f"{section}.{name}": member for section, members in sections.items() for name, member in members.items()}


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
    require_known(where, str(member.untrained), fit, what)


def _from_tokens(study: Study, where: str, capture: str, hooks: dict[str, str]) -> None:
    """Check that a member's capture reads corpus tokens and has the member's hooks."""
    require_known(
        f"{where}.capture",
        capture,
        [name for name, value in study.captures.items() if value.tokens in study.tokens],
        "capture of corpus tokens",
    )
    for key, hook in hooks.items():
        require_known(f"{where}.{key}", hook, study.captures[capture].hooks, f"hook of the capture '{capture}'")


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
    require_known(f"{where}.probes", member.probes, [*study.probes], "entry of `probes`")
    probes = study.probes[member.probes]
    capture = study.captures[probes.capture]
    for i, fit in enumerate(member.fits or []):
        require_known(f"{where}.fits[{i}]", fit, probes.fits, f"probe of `probes.{member.probes}`")
    statements = study.statements[capture.tokens]
    sets, what = statements.names, f"set of statements.{capture.tokens}"
    for i, name in enumerate(member.sets or []):
        require_known(f"{where}.sets[{i}]", name, sets, what)
    require_known(f"{where}.train_set", member.train_set, ["all", *sets], what)
    for i, hook in enumerate(member.hooks):
        require_known(f"{where}.hooks[{i}]", hook, capture.hooks, f"hook of the capture '{probes.capture}'")
    _can_be_replaced(f"{where}.hooks", member.hooks)


def _has_stages(study: Study, where: str, member: Probes) -> None:
    """Check that the stages of cascades are probes that were fitted, and may be used on an input by itself."""
    sections = (
        {} if member.monitoring is None else {"first": member.monitoring.first, "second": member.monitoring.second}
    )
    for at, stage in (
        (f"{where}.{key}[{i}]", stage) for key, stages in sections.items() for i, stage in enumerate(stages)
    ):
        require_known(f"{at}.probe", stage.probe, member.fits, "probe of this study")
        hooks = study.captures[member.capture].hooks
        require_known(f"{at}.hook", stage.hook, hooks, f"hook of the capture '{member.capture}'")
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
            require_known(f"{where}.{key}.study", fit.study, [*study.dictionaries], "entry of `dictionaries`")
            places[f"dictionaries.{fit.study}"] = study.dictionaries[fit.study].hooks
    if (probe := experiment.probe) is not None:
        require_known(f"{where}.probe", probe, [*study.probes], "entry of `probes`")
        places[f"probes.{probe}"] = study.captures[study.probes[probe].capture].hooks
        for i, family in enumerate(map(families.parse_direction, experiment.directions)):
            if family.probe:
                require_known(
                    f"{where}.directions[{i}]",
                    family.probe,
                    study.probes[probe].fits,
                    f"probe of `probes.{probe}`",
                )
    for place, hooks in places.items():
        for i, site in enumerate(experiment.sites):
            require_known(f"{where}.sites[{i}]", site, hooks, f"hook of `{place}`")
