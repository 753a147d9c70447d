import json
import os
import re
import sys
import time
from pathlib import Path

# Every job, local or remote, parses this file first: so the package imports wherever a job runs, installed or not.
WORKFLOW = Path(workflow.current_basedir).parent
sys.path.insert(0, str(WORKFLOW))
SEARCH_PATH = os.pathsep.join([str(WORKFLOW), *filter(None, [os.getenv("PYTHONPATH")])])
os.environ |= {"PYTHONPATH": SEARCH_PATH, "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "true"}

from actspace import (
    archive,
    checkout,
    disk,
    fingerprint,
    hooks,
    leftovers,
    manifest,
    provenance,
    runs,
    shards,
    stages,
    upgrades,
)
from actspace.config import raw
from actspace.dictionaries import layout
from actspace.errors import StudyError
from actspace.perturbations import families
from actspace.reading import read_study

STARTED = time.monotonic()

CONFIG_FILES = [*map(str, workflow.overwrite_configfiles)] or ["config/config.yaml"]

try:
    for file in CONFIG_FILES:
        raw.check_file(Path(file))
except StudyError as error:
    sys.exit(str(error))

# The default study stands in only where no config file was given: Snakemake would merge it into a given one.
if not workflow.overwrite_configfiles:

    configfile: CONFIG_FILES[0]


try:
    raw.check(config, " + ".join(CONFIG_FILES))
    STUDY = read_study(config, " + ".join(CONFIG_FILES))
    KNOWN_MODEL = Path("results", STUDY.study, "model.json"), STUDY.model.source.model_dump()
    hooks.check_known(*KNOWN_MODEL, stages.checks(STUDY))
    layout.check_folders(
        stages.given_folders(STUDY, Path("results", STUDY.study)), (hooks.known(*KNOWN_MODEL) or {}).get("d_model")
    )
except StudyError as error:
    sys.exit(str(error))

R = f"results/{STUDY.study}"


def one_of(names):
    """A wildcard constraint: one of the members of a section, or nothing if it has none."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    split="train|test|all",
    shard=r"\d{3,5}",
    data="real|untrained|gaussian|shuffled",
    hook=r"[A-Za-z0-9._]+",
    revision=one_of(stages.revisions(STUDY)),
    capture=one_of(STUDY.captures),
    dictionaries=one_of(STUDY.dictionaries),
    probes=one_of(STUDY.probes),
    causal=one_of(STUDY.causal),
    experiment=one_of(STUDY.perturbations),
    optima=one_of(STUDY.optima),
    planes=one_of(STUDY.planes),
    regions=one_of(STUDY.regions),
    spikes=one_of(STUDY.spikes),


def stage_cfg(stage):
    """The one params entry that holds settings: what this stage uses of the config, as a dict sorted by key."""
    wanted = getattr(stages, stage)
    names = wanted.__code__.co_varnames[1 : wanted.__code__.co_argcount]

    def cfg(wildcards):
        return stages.canonical(wanted(STUDY, **{name: wildcards[name] for name in names}))

    return cfg


def member_cfg(stage, **members):
    """As `stage_cfg`, for rules that exist once per member."""
    return stages.canonical(getattr(stages, stage)(STUDY, **members))


def code(script):
    """The other params entry: the fingerprint of a script and of all that it imports from the package."""
    return fingerprint.of_script(WORKFLOW / "scripts" / f"{script}.py")


def made(**artifacts):
    """Outputs of a rule: every artifact, and its receipt beside it; Snakemake searches them in this order, so those that most jobs read stand first."""
    outputs = {}
    for name, paths in artifacts.items():
        outputs |= {name: paths, f"{name}_receipt": receipts(paths)}
    return outputs


def receipts(paths):
    return f"{paths}.json" if isinstance(paths, str) else [f"{path}.json" for path in paths]


def needs(**artifacts):
    """Inputs of a rule: artifacts by name, whose time stamp does not count, and their receipts, whose content does.

    A value is a path, a list of paths, or a function of the wildcards that returns either.
    """
    inputs = {}
    for name, paths in artifacts.items():
        inputs[name] = _of_wildcards(paths, _ancient)
        inputs[f"{name}_receipt"] = _of_wildcards(paths, receipts)
    return inputs


def _ancient(paths):
    return ancient(paths) if isinstance(paths, str) else [ancient(path) for path in paths]


def _of_wildcards(paths, mark):
    if not callable(paths):
        return mark(paths)

    def resolved(wildcards):
        return mark(paths(wildcards))

    return resolved


def on_device():
    """Resources of jobs that run the model: the device by name, and one GPU to be counted if it is certain that one is used."""
    device = STUDY.compute.device
    return {"device": device, "gpu": int(device == "cuda")}


def growing(amount):
    """A resource of which every retry gets more: twice the amount, then three times."""
    return lambda wildcards, attempt: amount * attempt


def activations_of(capture, hook, part):
    """Activations of one part (split and shard) of a capture, at one hook."""
    return f"{R}/activations/{capture}/{hook}/{part}.parquet"


def shards_of(capture, hook, split):
    """Activations of one hook and split of a capture: the list of the shards stands for them."""
    return [f"{R}/activations/{capture}/{hook}/{split}{shards.SUFFIX}"]


def token_parts(tokens, split):
    """Token sequences of one split of a token set, by their list."""
    return [f"{R}/tokens/{tokens}/{split}{shards.SUFFIX}"]


def statement_rows(capture, hook):
    """Activations of statements, or phrases, at one hook: they are in one file."""
    return activations_of(capture, hook, "all-000")


def moments_of(capture, hook):
    return f"{R}/moments/{capture}/{hook}.safetensors"


def model_inputs(description=f"{R}/model.json"):
    """A model's description (a path, or a function of the wildcards) and, for models that were converted, its weights."""
    return needs(model=description) | converted_weights()


def description_of(capture):
    """The description of the model that a capture reads: the study's, or another revision of it."""
    revision = STUDY.captures[capture].revision
    return f"{R}/checkpoints/{revision}.json" if revision else f"{R}/model.json"


def converted_weights():
    """The weights of a model that was converted, nothing for a model that is read where it is."""
    folder = stages.converted_model(STUDY)
    return needs(weights=f"{folder}/model.safetensors") if folder else {}


def stop_if_it_cannot_go_well():
    """End a run before its first job if it would read a damaged file, may not write its own, or its activations would not fit on the disk."""
    jobs = [*workflow.dag.needrun_jobs()]
    making = [path for job in jobs for path in job.output]
    try:
        runs.check_inputs({path for job in jobs for path in job.input} - {*making})
        runs.check_outputs([*making, *(path for job in jobs for path in job.log)])
        disk.check_known(STUDY, Path("results", STUDY.study), making)
    except StudyError as error:
        sys.exit(f"actspace: {error}")


def closing_lines():
    """What a run says when it is done: time, cost and where the report lies; what upgrades may affect, and what is left behind."""
    folder = Path("results", STUDY.study)
    lines = [manifest.closing_line(folder, time.monotonic() - STARTED)]
    if (folder / "manifest.json").is_file():
        lines += filter(None, [upgrades.remark(folder), leftovers.remark(folder)])
    return "\n".join(lines)
