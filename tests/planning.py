"""What parsing the Snakefile does with a config, in this process and without Snakemake: checks, every stage's cfg, every path that is made."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from actspace import disk, shards, stages
from actspace.config import raw
from actspace.config.study import Study
from actspace.errors import StudyError
from actspace.reading import read_study

RULES = Path(__file__).parents[1] / "workflow" / "rules"
CFG = re.compile(r'(?:stage_cfg|member_cfg)\(\s*"([a-z_]+)"')
STAGES = sorted({name for file in RULES.glob("*.smk") for name in CFG.findall(file.read_text())})


def _functions() -> Any:
    """Compile what the rules take as inputs: plain Python, behind the directives of `common.smk`."""
    common = (RULES / "common.smk").read_text()
    source = common[common.index("def stage_cfg") :] + (RULES / "inputs.smk").read_text()
    return compile(source, "common.smk + inputs.smk", "exec")


CODE = _functions()


def refusal(act: Callable[[], object]) -> str:
    """Do something; return the text of the StudyError that it raises, or nothing. Any other error is a crash."""
    try:
        act()
    except StudyError as error:
        return str(error)
    return ""


class Plan:
    """A config that was read, and all that a dry run would make of it.

    Raises StudyError as a run would, with the same lines.
    """

    def __init__(self, config: Any) -> None:
        raw.check(config, "config")
        self.study: Study = read_study(config, "config")
        names: dict[str, Any] = {
            "STUDY": self.study,
            "R": f"results/{self.study.study}",
            "shards": shards,
            "stages": stages,
            "Path": Path,
        }
        exec(CODE, names)
        self.paths = SimpleNamespace(**names)
        self.cfg = {stage: [self._cfg(stage, members) for members in self._members(stage)] for stage in STAGES}

    def outputs(self) -> list[str]:
        """List every file that a run may write, receipts left out."""
        fetched = [file for file in stages.user_files(self.study)["statements"] if self.paths.is_fetched(file)]
        source = self.study.model.source
        wheels = self.paths.corpus_wheels() + ([self.paths.wheel_of(source)] if source.kind == "package" else [])
        converted = stages.converted_model(self.study)
        weights = [f"{converted}/model.safetensors", f"{converted}/config.json"] if converted else []
        return [*self.paths.study_artifacts(), *self.paths.visible_results(), *fetched, *wheels, *weights]

    def _cfg(self, stage: str, members: tuple[str, ...]) -> Any:
        return stages.canonical(getattr(stages, stage)(self.study, *members))

    def _members(self, stage: str) -> list[tuple[str, ...]]:
        """List the members that the rules of a stage have, in the order of its arguments."""
        study = self.study
        fits = [(name, fit) for name in study.dictionaries for fit in self.paths.fit_members(name)]
        by_fit = [(name, hook, data, Path(path).name) for name, (data, hook, path) in fits]
        given = [(name, hook, fit) for name, hook, data, fit in by_fit if fit.startswith("given-") and data == "real"]
        hooks = [(name, hook) for name, member in study.dictionaries.items() for hook in member.hooks]
        sites = {
            key: [(name, site) for name, member in getattr(study, section).items() for site in member.sites]
            for key, section in (
                ("perturbation", "perturbations"),
                ("optima", "optima"),
                ("planes", "planes"),
                ("regions", "regions"),
            )
        }
        sources = [study.model.source, *(study.corpus.sources if study.corpus else [])]
        fetched = [Path(file).name for file in stages.user_files(study)["statements"] if self.paths.is_fetched(file)]
        found: dict[str, list[Any]] = {
            **{
                name: [(key,) for key in getattr(study, name)]
                for name in ("tokens", "statements", "probes", "causal", "spikes")
            },
            **sites,
            "causal_prompts": [(key,) for key in study.causal],
            "cascades": [(key,) for key in stages.monitored(study)],
            "phrases": [(key,) for key in study.concepts],
            "concepts": [(key,) for kind in stages.KINDS_OF_CONCEPTS for key in stages.concept_captures(study, kind)],
            "activations": [(key,) for key in study.captures],
            "checkpoint": [(key,) for key in stages.revisions(study)],
            "moments": stages.hooks_with_moments(study),
            "fit": [key for key in by_fit if not key[3].startswith("given-")],
            "dictionary_metrics": by_fit,
            "given": given,
            "matches": [(name, hook, data) for name, hook, data, _ in by_fit],
            "surrogate": [
                (null, member.capture, hook, split)
                for member in study.dictionaries.values()
                for null in member.nulls
                for hook in member.hooks
                for split in stages.SPLITS
            ],
            "splice": [place for place in hooks if study.dictionaries[place[0]].splice_sequences],
            "top_contexts": hooks,
            "package": [(f"{source.name}-{source.version}",) for source in sources if source.kind == "package"],
            "statement_file": [(name,) for name in fetched],
            "toy": [()] if study.toy else [],
            "toy_superposition": [()] if study.toy_superposition else [],
            "convert_model": [()] if stages.converted_model(study) else [],
        }
        return found.get(stage, [()])


def expected_files(plan: Plan, d_model: int = 32) -> dict[str, Any]:
    """Expect the sizes of a study's files, as `snakemake plan` and the check of the disk do."""
    return disk.files(plan.study, d_model)
