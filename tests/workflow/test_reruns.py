"""What runs again after which edit: exactly what depends on it."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from test_rerun_table import changed, jobs
from tiny import ROOT, TinyStudy

from actspace.reading import read_study

END = {"claims", "report", "manifest"}
FIGURES_OF = {
    **{"toy": {"toy"}, "probe_tables": {"probes"}, "causal_tables": {"causal"}, "cascade_table": {"cascades"}},
    **{"concept_table": {"concepts"}, "dictionary_tables": {"dictionaries"}, "match_table": {"dictionaries"}},
    **{"perturbation_tables": {"curves", "crossings"}, "optima_tables": {"optima"}, "plane_tables": {"planes"}},
    **{"region_tables": {"regions"}, "spike_tables": {"spikes"}},
}
"""The figures that are drawn from what a rule makes, by part of the study."""
AFTER_MOMENTS = {"moments", "activation_table"}
CONTEXTS = {"activations_contexts", "shards"}
DICTIONARY_END = END | {"dictionary_metrics", "dictionary_tables", "splice"}
DICTIONARY_END |= {"structure", "matches", "match_table", "top_contexts", "context_table"}
PERTURBATION_END = END | {"perturbation", "perturbation_tables"}
SPIKES_END = END | {"spikes", "spike_tables"}
REGIONS_END = END | {"regions", "region_tables"}
FIT_END = DICTIONARY_END | PERTURBATION_END | SPIKES_END  # one experiment, and one study of spikes, are made from fits
ALL_CAPTURES = {f"activations_{name}" for name in ("contexts", "statements", "prompts", "untrained", "sofas", "grades")}
AFTER_CONTEXTS = AFTER_MOMENTS | {"surrogate", "kmeans", "pca", "sae", "rate_distortion"} | FIT_END
OPTIMA_END = END | {"optima", "optima_tables"}
PLANES_END = END | {"planes", "plane_tables"}
AFTER_PROMPTS = AFTER_MOMENTS | PERTURBATION_END | OPTIMA_END | PLANES_END | REGIONS_END
CAUSAL_END = END | {"causal", "causal_tables"}
CONCEPTS_END = END | {"concepts", "concept_table"}
CASCADES_END = END | {"cascades", "cascade_table"}
PROBE_END = (
    CAUSAL_END | CASCADES_END | {"probes", "probe_tables"} | PERTURBATION_END
)  # one experiment is made from probes, and from fits
LAST = {"report", "manifest"}


def with_figures(rules: set[str]) -> set[str]:
    """Add the rules that draw what some rules made, and no others."""
    return rules | {f"figures_{part}" for rule in rules for part in FIGURES_OF.get(rule, ())}


Edit = Callable[[dict[str, Any]], object]


def residual(c: dict[str, Any]) -> dict[str, Any]:
    return c["dictionaries"]["residual"]


EDITS: dict[str, tuple[Edit, set[str]]] = {
    "title": (lambda c: c.update(title="Another title"), LAST),
    "model.gauge does nothing if it is named": (lambda c: c["model"].update(gauge="raw"), set()),
    "archive.activations": (lambda c: c.update(archive={"activations": True}), set()),
    "rows_per_launch": (
        lambda c: c.update(compute={"rows_per_launch": 64}),
        PERTURBATION_END | OPTIMA_END | PLANES_END | REGIONS_END | CAUSAL_END,
    ),
    "tokens.contexts.train": (
        lambda c: c["tokens"]["contexts"].update(train=90),
        {"tokens_contexts"} | CONTEXTS | AFTER_CONTEXTS,
    ),
    "statements.per_set": (
        lambda c: c["statements"]["truth"].update(per_set=36),
        {"statements", "activations_statements", "causal_prompts"} | PROBE_END,
    ),
    "captures.contexts.storage": (
        lambda c: c["captures"]["contexts"].update(storage="float32"),
        CONTEXTS | AFTER_CONTEXTS,
    ),
    "captures.contexts.select": (
        lambda c: c["captures"]["contexts"]["select"].update(first_position=2),
        AFTER_CONTEXTS,
    ),
    "kmeans.tolerance": (lambda c: residual(c)["kmeans"].update(tolerance=0.01), {"kmeans"} | FIT_END),
    "kmeans.sizes, one more": (lambda c: residual(c)["kmeans"].update(sizes=[4, 8, 16]), {"kmeans"} | DICTIONARY_END),
    "topk.vectors": (lambda c: residual(c)["topk"].update(vectors=1000), {"sae"} | FIT_END),
    "given, one more": (
        lambda c: residual(c)["given"].update(again={"folder": "saes/{hook}"}),
        {"given"} | DICTIONARY_END,
    ),
    "given, the folder written out": (
        lambda c: residual(c)["given"]["gated"].update(folder="saes/blocks.0.hook_resid_post"),
        LAST,
    ),
    "splice_sequences": (lambda c: residual(c).update(splice_sequences=3), {"splice", "dictionary_tables"} | END),
    "probes.C": (lambda c: c["probes"]["truth"].update(C=0.1), PROBE_END),
    "causal.strength": (lambda c: c["causal"]["directions"].update(strength=2), CAUSAL_END),
    "causal.template": (
        lambda c: c["causal"]["directions"].update(template="{statement} so:"),
        {"causal_prompts"} | CAUSAL_END,
    ),
    "concepts.grades.adjectives": (
        lambda c: c["concepts"]["grades"].update(adjectives=["cold", "old", "big", "wet"]),
        {"phrases", "activations_grades"} | CONCEPTS_END,
    ),
    "concepts.sofas.folds": (lambda c: c["concepts"]["sofas"].update(folds=4), CONCEPTS_END),
    "probes.monitoring": (
        lambda c: c["probes"]["truth"]["monitoring"].update(shares=[0.4]),
        CASCADES_END,
    ),
    "toy.points": (lambda c: c["toy"].update(points=1000), {"toy"} | END),
    "perturbations.plateaus.draws": (lambda c: c["perturbations"]["plateaus"].update(draws=3), PERTURBATION_END),
    "optima.subspaces": (
        lambda c: c["optima"]["sensitivity_optima"].update(subspaces=None),
        OPTIMA_END,
    ),
    "planes.resolution": (lambda c: c["planes"]["three_activations"].update(resolution=9), PLANES_END),
    "regions.clusters": (lambda c: c["regions"]["between_prompts"].update(clusters=3), REGIONS_END),
    "spikes.pairs": (lambda c: c["spikes"]["activations"].update(pairs=9), SPIKES_END),
    "toy_superposition.k": (
        lambda c: c["toy_superposition"].update(k=2),
        {"toy_superposition", "spike_tables"} | END,
    ),
    "a new capture": (
        lambda c: c["captures"].update(more={"tokens": "contexts", "hooks": ["blocks.1.hook_resid_post"]}),
        {"activations_more", "shards"} | LAST,
    ),
}


@pytest.fixture
def settings(finished: TinyStudy) -> Iterator[dict[str, Any]]:
    original = finished.config()
    yield copy.deepcopy(original)
    finished.write(original)


IN_EVERY_RUN = {
    *(
        "title",
        "model.gauge does nothing if it is named",
        "rows_per_launch",
        "tokens.contexts.train",
        "captures.contexts.select",
    ),
    *("kmeans.sizes, one more", "given, the folder written out", "probes.C", "causal.template", "a new capture"),
}
"""The edits that `make test` plans, one of each kind; the fast table, which these hold to Snakemake, has every key."""


@pytest.mark.parametrize(
    "name", [name if name in IN_EVERY_RUN else pytest.param(name, marks=pytest.mark.slow) for name in EDITS]
)
def test_a_config_edit_reruns_exactly_what_uses_it(finished: TinyStudy, settings, name):
    edit, expected = EDITS[name]
    before = copy.deepcopy(settings)
    edit(settings)
    finished.write(settings)
    run = finished.dry_run()
    assert set(run.rules) == with_figures(expected)
    # `test_rerun_table.py` tells without Snakemake what changes itself, not what follows. An archive is only made when it is asked for.
    told = changed(*map(jobs, map(read_study, (before, settings)))) - {"archive"}
    assert run.settings_changed - LAST <= told <= set(run.rules)


def test_a_new_fit_computes_itself_alone(finished: TinyStudy, settings):
    residual(settings)["kmeans"]["sizes"].append(16)
    finished.write(settings)
    planned = finished.plan()
    assert planned["kmeans"] == 2  # on real data and on the surrogate
    assert planned["dictionary_metrics"] == 2


def test_a_new_layer_is_captured_alone(finished: TinyStudy, settings):
    settings["captures"]["contexts"]["hooks"].append("blocks.1.hook_resid_post")
    finished.write(settings)
    assert finished.plan() == {"added_activations_contexts": 4, "shards": 2, "report": 1, "manifest": 1}


def test_a_layer_that_is_taken_out_reruns_nothing_but_the_page(finished: TinyStudy, settings):
    settings["captures"]["sofas"]["hooks"] = ["blocks.1.hook_resid_post"]
    finished.write(settings)
    assert "activations_sofas" not in finished.plan()


def test_a_new_layer_of_a_capture_with_other_settings_is_captured_with_the_others(finished: TinyStudy, settings):
    settings["captures"]["contexts"]["hooks"].append("blocks.1.hook_resid_post")
    settings["captures"]["contexts"]["storage"] = "float32"
    finished.write(settings)
    planned = finished.plan()
    assert planned["activations_contexts"] == 4
    assert "added_activations_contexts" not in planned


def test_swapping_two_settings_of_equal_type_is_seen(finished: TinyStudy, settings):
    experiment = settings["perturbations"]["plateaus"]
    experiment["prompts"], experiment["draws"] = experiment["draws"], experiment["prompts"]
    finished.write(settings)
    assert set(finished.plan()) == with_figures(PERTURBATION_END)


@pytest.fixture
def edited(finished: TinyStudy) -> Iterator[Callable[[str, str, str], None]]:
    """Edit a file of the package; it is put back afterwards."""
    kept: dict[str, str] = {}

    def edit(name: str, old: str, new: str) -> None:
        path = finished.folder / "workflow" / name
        text = kept.setdefault(name, path.read_text())
        assert old in text, f"{name} no longer holds {old!r}"
        path.write_text(text.replace(old, new, 1))

    yield edit
    for name, text in kept.items():
        (finished.folder / "workflow" / name).write_text(text)


def reversed_keys(settings: Any) -> Any:
    """Write every section from its last key to its first; lists stay as they are."""
    if isinstance(settings, list):
        return [reversed_keys(value) for value in settings]
    if isinstance(settings, dict):
        return {key: reversed_keys(settings[key]) for key in reversed(settings)}
    return settings


def test_what_changes_no_number_reruns_nothing(finished: TinyStudy, settings, edited):
    """Everything neutral at once: key order, ways of writing numbers, device, threads, comments, docstrings, formatting, time stamps."""
    residual(settings)["topk"] |= {"vectors": "2e3", "batch_size": 64.0}
    settings["probes"]["truth"] |= {"splits": 3.0, "C": "1e0"}
    finished.write(reversed_keys(settings | {"compute": {"device": "cpu", "threads": 2}}))
    with (finished.folder / "config" / "config.yaml").open("a") as file:
        file.write("\n# a remark\n")
    edited("actspace/dictionaries/kmeans.py", '"""Fit k-means', '"""Fit, by the way, k-means')
    edited("actspace/provenance.py", "import hashlib\n", "import hashlib  # a remark\n\n\n")
    edited("scripts/kmeans.py", '"""One', '"""Exactly one')
    for path in sorted(finished.results.rglob("*"), reverse=True):
        os.utime(path)
    assert finished.plan() == {}


def test_editing_the_kmeans_code_reruns_kmeans_and_what_follows_only(finished: TinyStudy, edited):
    edited("actspace/dictionaries/kmeans.py", "MOVED_AT_ONCE = 256", "MOVED_AT_ONCE = 128")
    planned = finished.plan()
    assert set(planned) == with_figures({"kmeans"} | FIT_END | REGIONS_END)  # outputs are clustered by the same code
    assert planned["dictionary_metrics"] == planned["kmeans"] == 4
    assert planned["perturbation"] == 1  # the experiment that uses a fit


def test_editing_a_script_reruns_its_rule(finished: TinyStudy, edited):
    edited("scripts/claims.py", "entries.evaluate(found)", "entries.evaluate(dict(found))")
    assert set(finished.plan()) == {"claims"} | LAST


def test_editing_a_template_reruns_the_report(finished: TinyStudy, edited):
    edited("actspace/report/page.css", "{", "{ ")
    assert set(finished.plan()) == LAST


def test_benchmarks_that_are_changed_old_or_gone_rerun_nothing(finished: TinyStudy, tmp_path):
    folder = finished.results / "benchmarks"
    shutil.copytree(folder, tmp_path / "kept")
    (folder / "toy.tsv").write_text("edited")
    shutil.rmtree(folder / "sae")
    for path in folder.rglob("*.tsv"):
        os.utime(path, (1, 1))
    assert finished.plan() == {}
    shutil.rmtree(folder)
    assert finished.plan() == {}
    shutil.move(tmp_path / "kept", folder)


def test_both_entry_points_agree(finished: TinyStudy):
    assert finished.plan("-s", "workflow/Snakefile") == {}


@pytest.mark.parametrize("option", ["--profile", "--workflow-profile"])
@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "profiles").iterdir()))
def test_however_a_profile_is_given_a_touched_script_reruns_nothing_and_an_edited_one_its_rule(
    finished: TinyStudy, edited, name, option
):
    arguments = [option, f"profiles/{name}", "--cluster-generic-submit-cmd", "qsub"]  # that profile leaves it open
    for script in (finished.folder / "workflow" / "scripts").iterdir():
        os.utime(script)
    edited("scripts/toy.py", "def main(job):", "def main(job):\n    print(1)")
    assert set(finished.plan(*arguments)) == with_figures({"toy"} | END)


def test_a_fresh_folder_plans_every_stage(finished: TinyStudy, tmp_path):
    for name in ("Snakefile", "workflow", "profiles", "envs", "config"):
        source = finished.folder / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, tmp_path / name)
    for name in ("text.txt", "model", "saes"):
        (tmp_path / name).symlink_to(finished.folder / name)
    fresh = object.__new__(TinyStudy)
    fresh.folder = tmp_path
    expected = ALL_CAPTURES | CONTEXTS | AFTER_CONTEXTS | AFTER_PROMPTS | PROBE_END | CONCEPTS_END
    assert set(fresh.plan()) == with_figures(
        expected
        | {
            "model",
            "selfcheck",
            "statements",
            "phrases",
            "causal_prompts",
            "tokens_contexts",
            "tokens_prompts",
            "toy",
            "toy_superposition",
            "given",
        }
    )


def test_a_deleted_result_is_made_again_and_nothing_upstream(finished: TinyStudy):
    table = finished.results / "tables" / "claims.csv"
    kept = table.read_bytes()
    table.unlink()
    assert set(finished.plan()) == {"claims"} | LAST
    table.write_bytes(kept)
