from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from actspace.config.study import Study
from actspace.errors import StudyError
from actspace.reading import read_study

SAE = {"latents": [8], "vectors": 100}
BASE: dict[str, Any] = {
    "study": "small",
    "model": {"source": {"kind": "folder", "path": "model"}},
    "corpus": {"sources": [{"kind": "file", "path": "text.txt"}]},
    "tokens": {"prompts": {"length": 8, "train": 20, "test": 6}},
    "statements": {"truth": {"generated": ["cities"]}},
    "captures": {
        "whole": {"tokens": "prompts", "hooks": ["blocks.0.hook_resid_post"]},
        "ends": {"tokens": "prompts", "hooks": ["blocks.1.hook_resid_pre"], "positions": "last"},
        "facts": {"tokens": "truth", "hooks": ["blocks.0.hook_resid_pre"], "positions": "last"},
    },
    "dictionaries": {
        "both": {
            "capture": "whole",
            "hooks": ["blocks.0.hook_resid_post"],
            "kmeans": {"sizes": [4]},
            "topk": {**SAE, "k": [2]},
        }
    },
    "probes": {"truth": {"capture": "facts"}},
    "perturbations": {
        "plateau": {
            "capture": "ends",
            "sites": ["blocks.1.hook_resid_pre"],
            "read": "blocks.1.hook_resid_post",
            "bases": ["real"],
            "directions": ["isotropic"],
            "prompts": 4,
        }
    },
}
NAME = "does not have the form ^[A-Za-z0-9][A-Za-z0-9_-]*$"
ABSENT = object()


def changed(path: str, value: Any, base: dict[str, Any] = BASE) -> dict[str, Any]:
    """Return the base study with one key set (or left out, for `ABSENT`); numbers in the path are places in lists."""
    config = copy.deepcopy(base)
    *parents, last = (int(key) if key.isdigit() else key for key in path.split("/"))
    section: Any = config
    for key in parents:
        section = section.setdefault(key, {}) if isinstance(section, dict) else section[key]
    if value is ABSENT:
        del section[last]
    else:
        section[last] = value
    return config


def complaint(config: Any) -> str:
    """Return the one line that a mistake gives."""
    with pytest.raises(StudyError, match=r"\Aconfig: [^\n]+\Z") as caught:
        read_study(config)
    return str(caught.value).removeprefix("config: ")


def value_of(path: str, value: Any) -> Any:
    """Return what a key holds after reading."""
    found: Any = read_study(changed(path, value))
    for key in path.split("/"):
        found = found[key] if isinstance(found, dict) else getattr(found, key)
    return found


def test_the_base_study_is_sound():
    assert read_study(BASE).captures["ends"].positions == "last"


@pytest.mark.parametrize(
    ("path", "where", "allowed", "nearest"),
    [
        ("captures_", "captures_", "study, title, seed", "captures"),
        ("model/gaug", "model.gaug", "source, dtype, gauge", "gauge"),
        ("tokens/prompts/lenght", "tokens.prompts.lenght", "length, bos, train", "length"),
        ("captures/ends/select/first", "captures.ends.select.first", "first_position, norm_outliers", None),
        ("model/source/pth", "model.source.pth", "kind, path", "path"),
        ("corpus/sources/0/formt", "corpus.sources[0].formt", "kind, path, format", "format"),
        ("dictionaries/both/topk/latent", "dictionaries.both.topk.latent", "latents, seeds", "latents"),
    ],
)
def test_an_unknown_key_is_named_with_what_is_allowed_and_the_nearest(path, where, allowed, nearest):
    line = complaint(changed(path, 1))
    assert line.startswith(f"{where}: unknown key; allowed here: {allowed}")
    assert line.endswith(f"; did you mean '{nearest}'?") or (nearest is None and "did you mean" not in line)


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("title", 5, "title: found 5; input should be a valid string"),
        ("model/dtype", "float64", "model.dtype: found 'float64'; input should be 'float32', 'bfloat16' or 'float16'"),
        ("model", None, "model: found None; a mapping of keys belongs here"),
        ("model/source", "gpt2", "model.source: found 'gpt2'; a mapping of keys belongs here"),
        (
            "model/source/kind",
            "hubb",
            "model.source.kind: found 'hubb'; allowed: 'hub', 'folder', 'gguf', 'package'",
        ),
        ("corpus/sources/0/kind", ABSENT, "corpus.sources[0].kind: missing; allowed: 'hub', 'file', 'package'"),
        ("model/source/path", ABSENT, "model.source.path: missing; this key is required"),
        ("study", ABSENT, "study: missing; this key is required"),
        ("tokens/prompts/length", ABSENT, "tokens.prompts.length: missing; this key is required"),
        ("model/trust_remote_code", "yes", "model.trust_remote_code: found 'yes'; input should be a valid boolean"),
    ],
)
def test_a_wrong_or_missing_value_is_one_line(path, value, line):
    assert complaint(changed(path, value)) == line


CAUSAL = {"probes": "truth", "hooks": ["blocks.0.hook_resid_pre"]}


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            "probes",
            "truht",
            "probes: there is no entry of `probes` named 'truht'; there are: truth; did you mean 'truth'?",
        ),
        ("fits", ["mass_men"], "fits[0]: there is no probe of `probes.truth` named 'mass_men'"),
        ("sets", ["city"], "sets[0]: there is no set of statements.truth named 'city'; there are: cities"),
        ("train_set", "city", "train_set: there is no set of statements.truth named 'city'; there are: all, cities"),
        ("hooks", ["blocks.1.hook_resid_pre"], "hooks[0]: there is no hook of the capture 'facts' named"),
        ("random_directions", 49, "random_directions: found 49; input should be greater than or equal to 50"),
        ("positions", [0], "positions[0]: found 0; input should be less than or equal to -1"),
        ("shots", 3, "shots: found 3; input should be a multiple of 2"),
        ("template", "Is it so?", "template: 'Is it so?' must hold '{statement}' once"),
    ],
)
def test_a_causal_experiment_that_its_probes_cannot_serve_is_refused(key, value, line):
    assert complaint(changed("causal", {"added": {**CAUSAL, key: value}})).startswith(f"causal.added.{line}")


@pytest.mark.parametrize("config", [None, [], "study"])
def test_a_config_that_is_no_mapping_is_refused(config):
    assert complaint(config) == f"a config is a mapping of keys, found {config!r}"


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("corpus/test_fraction", float("nan"), "found nan; give a finite number"),
        ("corpus/test_fraction", "nan", "found 'nan'; give a finite number"),
        ("dictionaries/both/kmeans/tolerance", float("inf"), "found inf; give a finite number"),
        ("tokens/prompts/length", "1e400", "found '1e400'; give a finite number"),
        ("corpus/test_fraction", True, "found True; input should be a valid number"),
        ("tokens/prompts/length", True, "found True; input should be a valid integer"),
        ("tokens/prompts/length", 2.5, "found 2.5; input should be a valid integer"),
        ("tokens/prompts/length", "eight", "found 'eight'; input should be a valid integer"),
        ("tokens/prompts/length", 0, "found 0; input should be greater than 0"),
        ("tokens/prompts/shards", 10_001, "found 10001; input should be less than or equal to 10000"),
        ("seed", -1, "found -1; input should be greater than or equal to 0"),
    ],
)
def test_what_is_no_number_for_a_key_is_refused(path, value, reason):
    assert complaint(changed(path, value)) == f"{path.replace('/', '.')}: {reason}"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("dictionaries/both/topk/learning_rate", "3e-4", 3e-4),
        ("corpus/test_fraction", "0.5", 0.5),
        ("probes/truth/C", 2, 2.0),
        ("tokens/prompts/length", 8.0, 8),
        ("tokens/prompts/length", "8", 8),
        ("tokens/prompts/train", "1e3", 1000),
        ("seed", "9007199254740993", 9007199254740993),
    ],
)
def test_numbers_are_read_however_they_are_written(path, value, expected):
    found = value_of(path, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "two words", "line\n", "-x", "é"])
def test_names_that_would_leave_their_folder_are_refused(name):
    assert complaint(changed("study", name)) == f"study: {name!r} {NAME}"


def test_names_of_members_are_checked_too():
    config = copy.deepcopy(BASE)
    config["tokens"]["../x"] = BASE["tokens"]["prompts"]
    assert complaint(config) == f"tokens.../x: '../x' {NAME}"


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (
            "captures/whole/tokens",
            "prompt",
            "captures.whole.tokens: there is no entry of `tokens`, `statements` or `concepts` named 'prompt'; "
            "there are: prompts, truth; did you mean 'prompts'?",
        ),
        (
            "dictionaries/both/capture",
            "facts",
            "dictionaries.both.capture: there is no capture of corpus tokens named 'facts'; there are: whole, ends",
        ),
        (
            "dictionaries/both/hooks/0",
            "blocks.3.hook_resid_pre",
            "dictionaries.both.hooks[0]: there is no hook of the capture 'whole' named 'blocks.3.hook_resid_pre'; "
            "there are: blocks.0.hook_resid_post; did you mean 'blocks.0.hook_resid_post'?",
        ),
        (
            "perturbations/plateau/sites/0",
            "ln_final.hook_normalized",
            "perturbations.plateau.sites[0]: there is no hook of the capture 'ends' named 'ln_final.hook_normalized'; "
            "there are: blocks.1.hook_resid_pre",
        ),
        (
            "probes/truth/capture",
            "ends",
            "probes.truth.capture: there is no capture of statements named 'ends'; there are: facts",
        ),
        ("corpus", ABSENT, "corpus: missing; `tokens` needs text"),
    ],
)
def test_a_reference_to_what_does_not_exist_says_what_there_is(path, value, line):
    assert complaint(changed(path, value)) == line


@pytest.mark.parametrize(
    ("positions", "position", "stored"),
    [
        ("last", "last", True),
        ("last", -1, True),
        ("last", -2, False),
        ("all", -2, True),
        ([-2, -1], -2, True),
        ([-2, -1], "last", True),
        ([0, 1], "last", False),
        ([0, 1], -1, False),
        ([0, 1], 1, True),
        ({"every": 2}, 2, True),
        ({"every": 2}, 3, False),
        ({"every": 2}, -2, False),
        ({"every": 1}, -2, True),
    ],
)
def test_a_position_of_statements_must_be_stored(positions, position, stored):
    config = changed("captures/facts/positions", positions)
    config["probes"]["truth"]["position"] = position
    if stored:
        assert read_study(config).probes["truth"].position == position
        return
    assert complaint(config) == (
        f"probes.truth.position: 'facts' does not store position {position} of each statement; add it to its `positions`, "
        "counted in the same way, or give another capture"
    )


@pytest.mark.parametrize(
    ("statements", "line"),
    [
        (
            {"geometry_of_truth": ["citties"]},
            "statements.truth.geometry_of_truth[0]: there is no published set named 'citties'; there are: cities, ",
        ),
        (
            {"generated": ["cities"], "geometry_of_truth": ["cities"]},
            "statements.truth: two sets are named 'cities'; leave one out",
        ),
        (
            {"truth_is_universal": ["facts"], "files": {"facts": "f.csv"}},
            "statements.truth: two sets are named 'facts'; leave one out",
        ),
        (
            {"generated": ["cities_conj"], "per_set": 12},
            "statements.truth.per_set: found 12; conjunctions and disjunctions come in eights",
        ),
        (
            {"files": {"own": "f.csv"}, "entity_columns": {"owns": ["city"]}},
            "statements.truth.entity_columns.owns: there is no set from a file named 'owns'; there are: own; did you mean 'own'?",
        ),
    ],
)
def test_mistakes_in_sets_of_statements_are_named(statements, line):
    assert complaint(changed("statements/truth", statements)).startswith(line)


def test_published_sets_are_read_from_their_addresses():
    found = read_study(changed("statements/truth", {"truth_is_universal": ["cities", "facts_conj"]})).statements[
        "truth"
    ]
    assert found.names == ["cities", "facts_conj"]
    assert found.places["facts_conj"].endswith("/datasets/facts_conj.csv")
    assert re.search("/datasets/cities[.]csv#sha256=[0-9a-f]{64}$", found.places["cities"])


@pytest.mark.parametrize(
    ("generated", "kinds", "line"),
    [
        (
            ["cities"],
            ["mass_mean", "ccs"],
            "probes.truth.probes[1]: 'ccs' needs a set of statements and its negation, ",
        ),
        (
            ["cities", "neg_element_symbols"],
            ["ccs"],
            "probes.truth.probes[0]: 'ccs' needs a set of statements and its ",
        ),
        (
            ["cities", "comparisons"],
            ["ttpd"],
            "probes.truth.probes[0]: 'ttpd' needs affirmative sets and negated ones ",
        ),
        (["neg_cities"], ["ttpd"], "probes.truth.probes[0]: 'ttpd' needs affirmative sets and negated ones "),
    ],
)
def test_probes_that_need_negations_say_so_before_anything_runs(generated, kinds, line):
    base = changed("statements/truth/generated", generated)
    assert complaint(changed("probes/truth/probes", kinds, base)).startswith(line)
    base = changed("statements/truth/generated", ["cities", "neg_cities"])
    assert read_study(changed("probes/truth/probes", ["ccs", "ttpd"], base)).probes["truth"].fits == ["ccs", "ttpd"]


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (
            {"template": "the {colour} {furniture}"},
            "template: 'the {colour} {furniture}' must have each of these blanks once, ",
        ),
        ({"template": "the {texture"}, "template: 'the {texture' is no template (expected '}' before end of string)"),
        ({"parts": {"phrase": ["a", "b"], "c": ["d", "e"]}}, "parts: 'phrase' is the name of something else here"),
        (
            {"kind": "intensity", "template": "so {adjective}"},
            "template: 'so {adjective}' must have each of these blanks once, ",
        ),
        ({"kind": "intensity", "folds": 21}, "folds: 21 folds of 40 adjectives; give two per fold or more"),
    ],
)
def test_a_concept_has_templates_and_words_that_go_together(edit, line):
    assert complaint(changed("concepts", {"sofas": {"kind": "unions"} | edit})).startswith(f"concepts.sofas.{line}")


def test_a_concept_is_read_at_its_last_tokens_and_named_for_itself():
    concepts = changed("concepts", {"sofas": {"kind": "unions"}})
    assert complaint(concepts).startswith("concepts.sofas: no capture reads it; add one with `tokens: sofas`")
    capture = {"tokens": "sofas", "hooks": ["blocks.0.hook_resid_post"]}
    line = complaint(changed("captures/sofas", capture, concepts))
    assert line.startswith("captures.sofas.positions: 'sofas' stores all positions")
    taken = changed("concepts", {"truth": {"kind": "unions"}})
    assert complaint(taken).startswith("concepts.truth: this name is taken by an entry of `tokens` or `statements`")


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        (
            {"probe": "mass_mena"},
            "first[0].probe: there is no probe of this study named 'mass_mena'; there are: logistic_regression, ",
        ),
        (
            {"hook": "blocks.1.hook_resid_pre"},
            "first[0].hook: there is no hook of the capture 'facts' named 'blocks.1.hook_resid_pre'",
        ),
        (
            {"probe": "mass_mean_per_dataset"},
            "first[0].probe: 'mass_mean_per_dataset' takes off the mean of a set, and an input that is monitored is of none",
        ),
    ],
)
def test_stages_of_a_cascade_are_probes_that_can_monitor(stage, line):
    good = {"probe": "mass_mean", "hook": "blocks.0.hook_resid_pre"}
    config = changed("probes/truth/monitoring", {"first": [good | stage], "second": [good]})
    config["probes"]["truth"]["centring"] = ["train_mean", "per_dataset"]
    assert complaint(config).startswith(f"probes.truth.monitoring.{line}")


def test_a_pictured_hook_is_one_of_the_capture():
    line = "probes.truth.pictured: there is no hook of the capture 'facts' named 'blocks.1.hook_resid_pre'"
    assert complaint(changed("probes/truth/pictured", "blocks.1.hook_resid_pre")).startswith(line)


def test_an_experiment_may_go_along_any_fit_of_a_probe_study():
    edits = {"C_path": [0.01], "centring": ["train_mean", "none"], "capture": "facts"}
    base = changed("probes/truth", edits, with_fits())
    for name in ("logistic_regression_c0.01", "mass_mean_uncentred"):
        path = "perturbations/plateau/directions/2"
        assert read_study(changed(path, f"probe_{name}", base)).perturbations["plateau"].probe == "truth"
    line = complaint(changed(path, "probe_mass_mean_per_dataset", base))
    assert line.startswith("perturbations.plateau.directions[2]: there is no probe of `probes.truth` named ")


@pytest.mark.parametrize(
    ("positions", "position", "stored"),
    [
        ("all", 3, True),
        ("last", 7, True),
        ([2, -1], "last", True),
        ([2, -1], 3, False),
        ({"every": 3}, 6, True),
        ({"every": 3}, "last", False),
    ],
)
def test_a_perturbed_position_must_be_stored(positions, position, stored):
    config = changed("captures/ends/positions", positions)
    config["tokens"]["prompts"]["length"] = 8
    config["perturbations"]["plateau"]["position"] = position
    number = 7 if position == "last" else position
    line = f"perturbations.plateau.position: 'ends' does not store position {number} of 8; "
    assert isinstance(read_study(config), Study) if stored else complaint(config).startswith(line)


@pytest.mark.parametrize("section", ["optima", "planes"])
def test_optima_and_planes_are_checked_as_other_experiments(section):
    config = copy.deepcopy(BASE)
    member = {key: config["perturbations"]["plateau"][key] for key in ("capture", "sites", "read")}
    config[section] = {"here": member | {"prompts": 2}}
    assert isinstance(read_study(config), Study)
    config[section]["here"]["prompts"] = 7
    assert complaint(config).startswith(f"{section}.here.prompts: 7, but tokens.prompts.test is 6; ")
    config[section]["here"] |= {"prompts": 2, "sites": ["blocks.0.hook_resid_pre"]}
    assert complaint(config).startswith(f"{section}.here.sites[0]: there is no hook of the capture 'ends' named ")


def test_subspaces_are_of_the_experiments_prompts():
    config = copy.deepcopy(BASE)
    member = {key: config["perturbations"]["plateau"][key] for key in ("capture", "sites", "read")}
    config["optima"] = {"here": member | {"prompts": 2, "subspaces": {"prompts": 3}}}
    assert complaint(config).startswith("optima.here.subspaces.prompts: 3, but the experiment has 2; ")


def test_interpolation_needs_a_target():
    config = changed("perturbations/plateau/paths", ["interpolate"])
    config["perturbations"]["plateau"]["directions"] = ["toward_real", "isotropic"]
    assert complaint(config).startswith(
        "perturbations.plateau.paths: `interpolate` ends at a target, and 'isotropic' has none"
    )


def test_a_name_stands_for_tokens_or_statements_not_both():
    config = changed("statements/prompts", {"generated": ["cities"]})
    assert complaint(config) == "statements.prompts: this name is taken by an entry of `tokens`; rename one"


def test_statements_without_a_source_are_refused():
    line = "statements.truth: no statements; name built-in sets under `generated` or CSV files under `files`"
    assert complaint(changed("statements/truth", {})) == line


def test_statements_come_in_fours():
    line = "statements.truth.per_set: found 6; input should be a multiple of 4"
    assert complaint(changed("statements/truth/per_set", 6)) == line


def test_a_broken_section_is_not_reported_again_where_it_is_used():
    assert complaint(changed("tokens/prompts/train", 0)).startswith("tokens.prompts.train: found 0")
    assert complaint(changed("statements/truth/per_set", 0)).startswith("statements.truth.per_set: found 0")


def test_every_mistake_has_a_line_of_its_own():
    config = changed("seed", "x") | {"colour": 1}
    with pytest.raises(StudyError, match=r"(?m)\Ahome.yaml: seed: .*\nhome.yaml: colour: .*\Z"):
        read_study(config, "home.yaml")


def test_a_range_of_hooks_is_written_out():
    hooks = ["ln_final.hook_normalized", "blocks.{9..11}.hook_resid_post", "blocks.0.hook_resid_pre"]
    found = value_of("captures/facts/hooks", hooks)
    middle = [f"blocks.{layer}.hook_resid_post" for layer in (9, 10, 11)]
    assert found == [hooks[0], *middle, hooks[2]]


@pytest.mark.parametrize("inside", ["3..1", "1000..1000", "0..99999999999"])
def test_a_reversed_or_huge_range_is_refused(inside):
    hook = f"blocks.{{{inside}}}.hook_resid_post"
    line = f"captures.facts.hooks: the range of '{hook}' holds no layers; write {{first..last}}, "
    assert complaint(changed("captures/facts/hooks", [hook])).startswith(line)


@pytest.mark.parametrize("hook", ["blocks.0.hook_resid_mid", "blocks.{0..1.hook_resid_pre", "blocks.-1.hook_resid_pre"])
def test_a_name_that_is_no_hook_point_is_refused(hook):
    assert complaint(changed("captures/facts/hooks/0", hook)).startswith(f"captures.facts.hooks[0]: {hook!r} does not")


@pytest.mark.parametrize(
    ("path", "twice"),
    [
        ("captures/facts/hooks", ["blocks.1.hook_resid_pre", "blocks.{0..2}.hook_resid_pre"]),
        ("dictionaries/both/kmeans/sizes", [4, 8, "4"]),
        ("perturbations/plateau/bases", ["real", "real"]),
        ("statements/truth/generated", ["cities", "cities"]),
    ],
)
def test_nothing_is_named_twice(path, twice):
    assert re.fullmatch(r"[\w.]+: ('[\w.]+'|4) is there twice; name it once", complaint(changed(path, twice)))


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("dictionaries/both/topk/k", [4, 9], "dictionaries.both.topk.k: 9 active latents, but a dictionary of .* 8; "),
        ("perturbations/plateau/prompts", 7, "perturbations.plateau.prompts: 7, but tokens.prompts.test is 6; "),
        (
            "dictionaries/both/splice_sequences",
            7,
            "dictionaries.both.splice_sequences: 7, but tokens.prompts.test is 6",
        ),
        ("dictionaries/both/kmeans/seeds", [-1], r"dictionaries.both.kmeans.seeds\[0\]: found -1; "),
        (
            "dictionaries/both/matryoshka",
            {**SAE, "k": [2], "prefixes": [0.5, 0.25, 1]},
            r"dictionaries.both.matryoshka.prefixes: found \[0.5, 0.25, 1.0\]; shares of the latents must rise",
        ),
        ("dictionaries/both/jumprelu", {**SAE, "l0": [9]}, "dictionaries.both.jumprelu.l0: 9 active latents, but a "),
        ("dictionaries/both/l1", {**SAE, "coefficients": [-1]}, r"dictionaries.both.l1.coefficients\[0\]: found -1; "),
    ],
)
def test_what_could_never_run_is_refused_before_it_starts(path, value, line):
    assert re.match(line, complaint(changed(path, value)))


def test_a_long_value_is_cut_short():
    line = complaint(changed("title", list(range(1000))))
    assert line.startswith("title: found [0, 1, 2,")
    assert len(line) < 120


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "config").rglob("*.yaml")), ids=lambda f: f.stem)
def test_the_studies_that_come_along_are_sound(file):
    assert isinstance(read_study(yaml.safe_load(file.read_text()), file.name), Study)


def test_the_final_norm_is_read_and_never_replaced():
    config = changed("captures/ends/hooks", ["ln_final.hook_normalized"])
    config["perturbations"]["plateau"]["sites"] = ["ln_final.hook_normalized"]
    line = "perturbations.plateau.sites: a value at 'ln_final.hook_normalized' cannot take the residual's place; "
    assert complaint(config).startswith(line)
    config = changed("captures/whole/hooks", ["ln_final.hook_normalized"])
    config["dictionaries"]["both"] |= {"hooks": ["ln_final.hook_normalized"], "splice_sequences": 1}
    assert complaint(config).startswith("dictionaries.both.splice_sequences: a value at 'ln_final.hook_normalized' can")
    config["dictionaries"]["both"]["splice_sequences"] = 0
    assert read_study(config).dictionaries["both"].hooks == ["ln_final.hook_normalized"]


POST = "blocks.0.hook_resid_post"
FITS = {
    "capture": "whole",
    "sites": [POST],
    "bases": ["real", "plus_latents_x4"],
    "directions": ["minus_decoder_dead", "cluster_difference", "probe_mass_mean"],
    "dictionary": {"study": "both", "fit": "topk-n8-k2-s0"},
    "clusters": {"study": "both", "fit": "kmeans-k4-s0"},
    "probe": "truth",
}


def with_fits(**edits: Any) -> dict[str, Any]:
    """Return the base study with an experiment that is made from fits; `ABSENT` leaves a key out."""
    config = changed("captures/facts/hooks", ["blocks.0.hook_resid_pre", POST])
    config["perturbations"]["plateau"] |= FITS | edits
    config["perturbations"]["plateau"] = {
        k: v for k, v in config["perturbations"]["plateau"].items() if v is not ABSENT
    }
    return config


def test_an_experiment_names_the_fits_that_it_is_made_from():
    assert read_study(with_fits()).perturbations["plateau"].probe == "truth"


@pytest.mark.parametrize(
    ("edits", "line"),
    [
        ({"bases": ["plus_latent"]}, "bases[0]: 'plus_latent' is unknown; use one of real, covariance_random, "),
        ({"directions": ["decoder_x2"]}, "directions[0]: 'decoder_x2' is unknown; use one of toward_real, "),
        (
            {"dictionary": ABSENT},
            "dictionary: missing; 'plus_latents_x4' is made from a sparse autoencoder, so name one here",
        ),
        ({"clusters": ABSENT}, "clusters: missing; 'cluster_difference' is made from a k-means fit"),
        ({"probe": ABSENT}, "probe: missing; 'probe_mass_mean' is made from a probe study"),
        (
            {"directions": ["isotropic", "decoder_dead", "cluster_difference"]},
            "probe: nothing here is made from a probe study; leave it out, or add a base or direction that is",
        ),
        (
            {"dictionary": {"study": "bothh", "fit": "topk-n8-k2-s0"}},
            "dictionary.study: there is no entry of `dictionaries` named 'bothh'; there are: both; did you mean 'both'?",
        ),
        (
            {"dictionary": {"study": "both", "fit": "topk-n8-k3-s0"}},
            "dictionary.fit: 'topk-n8-k3-s0' is not a sparse autoencoder of `dictionaries.both`; "
            "there are: topk-n8-k2-s0; did you mean 'topk-n8-k2-s0'?",
        ),
        (
            {"clusters": {"study": "both", "fit": "topk-n8-k2-s0"}},
            "clusters.fit: 'topk-n8-k2-s0' is not a k-means fit of `dictionaries.both`; there are: kmeans-k4-s0",
        ),
        ({"probe": "lies"}, "probe: there is no entry of `probes` named 'lies'; there are: truth"),
        (
            {"directions": ["decoder_dead", "cluster_difference", "probe_mean"]},
            "directions[2]: there is no probe of `probes.truth` named 'mean'; there are: logistic_regression, ",
        ),
        (
            {"capture": "ends", "sites": ["blocks.1.hook_resid_pre"]},
            "sites[0]: there is no hook of `dictionaries.both` named 'blocks.1.hook_resid_pre'; there are: " + POST,
        ),
    ],
)
def test_a_mistake_about_fits_is_one_clear_line(edits, line):
    assert complaint(with_fits(**edits)).startswith(f"perturbations.plateau.{line}")


def test_a_probe_study_has_every_perturbed_site():
    config = with_fits()
    config["captures"]["facts"]["hooks"] = ["blocks.0.hook_resid_pre"]
    line = f"perturbations.plateau.sites[0]: there is no hook of `probes.truth` named '{POST}'; there are: "
    assert complaint(config).startswith(line)


def test_interpolation_may_end_at_the_reconstruction():
    edits = {"bases": ["real"], "clusters": ABSENT, "probe": ABSENT, "paths": ["interpolate"]}
    assert read_study(with_fits(directions=["reconstruction_error", "toward_real"], **edits))
    line = "perturbations.plateau.paths: `interpolate` ends at a target, and 'decoder_active' has none"
    assert complaint(with_fits(directions=["decoder_active"], **edits)).startswith(line)


BETWEEN: dict[str, Any] = {
    "regions": {
        "between": {
            "capture": "ends",
            "sites": ["blocks.1.hook_resid_pre"],
            "read": "blocks.1.hook_resid_post",
            "prompts": 4,
            "clusters": 2,
        }
    },
    "spikes": {"saes": {"dictionaries": "both", "hook": "blocks.0.hook_resid_post", "fits": ["topk-n8-k2-s0"]}},
    "toy_superposition": {},
}


def between(path: str, value: Any) -> dict[str, Any]:
    """Return the base study with regions and spikes, and one of their keys set."""
    return changed(path, value, BASE | BETWEEN)


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (
            "regions/between/clusters",
            4,
            "regions.between.clusters: 4 regions of 4 prompts; lower it or raise `prompts`",
        ),
        (
            "regions/between/prompts",
            7,
            "regions.between.prompts: 7, but tokens.prompts.test is 6; lower the one or raise the other",
        ),
        (
            "regions/between/cells",
            {"study": "none", "fit": "kmeans-k4-s0"},
            "regions.between.cells.study: there is no entry of `dictionaries` named 'none'; there are: both",
        ),
        (
            "regions/between/cells",
            {"study": "both", "fit": "kmeans-k4-s0"},
            "regions.between.cells.study: fitted at blocks.0.hook_resid_post, which is none of `sites`; add it there, or "
            "leave this out",
        ),
        (
            "spikes/saes/hook",
            "blocks.1.hook_resid_pre",
            "spikes.saes.hook: there is no hook of `dictionaries.both` named 'blocks.1.hook_resid_pre'; there are: "
            "blocks.0.hook_resid_post; did you mean 'blocks.0.hook_resid_post'?",
        ),
        (
            "spikes/saes/fits/0",
            "topk-n8-k3-s0",
            "spikes.saes.fits[0]: 'topk-n8-k3-s0' is not a fit that encodes activations of `dictionaries.both`; there are: "
            "kmeans-k4-s0, topk-n8-k2-s0; did you mean 'topk-n8-k2-s0'?",
        ),
        ("spikes/saes/steps", 20, "spikes.saes.steps: 20 steps have no middle; use an odd number"),
        ("toy_superposition/features", [4], "toy_superposition.active: 6, but there are 4 features; lower it"),
        ("toy_superposition/k", 600, "toy_superposition.k: 600, but there are 512 features; lower it"),
    ],
)
def test_regions_and_spikes_refuse_what_cannot_be(path, value, line):
    assert complaint(between(path, value)) == line


def test_a_dictionary_that_looks_at_tokens_reads_no_vectors_between_activations():
    config = between("dictionaries/both/token_identity", True)
    config["spikes"]["saes"]["fits"] = ["kmeans-k4-s0", "token_identity"]
    assert "'token_identity' is not a fit that encodes activations of `dictionaries.both`" in complaint(config)


def test_cells_are_those_of_k_means():
    config = between("regions/between/cells", {"study": "both", "fit": "topk-n8-k2-s0"})
    config["dictionaries"]["both"]["hooks"] = ["blocks.1.hook_resid_pre"]
    config["captures"]["whole"]["hooks"] = ["blocks.1.hook_resid_pre"]
    config["spikes"]["saes"]["hook"] = "blocks.1.hook_resid_pre"
    line = "regions.between.cells.fit: 'topk-n8-k2-s0' is not a k-means fit of `dictionaries.both`; there are: kmeans"
    assert complaint(config).startswith(line)
