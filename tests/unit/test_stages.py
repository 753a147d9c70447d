from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from actspace import stages
from actspace.config.study import Study
from actspace.errors import StudyError
from actspace.reading import read_study
from actspace.seeds import seed_for

PRE, POST = "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"
SAE = {"latents": [8, 16], "vectors": 100}
SAE_FILES = ("sae_weights.safetensors", "cfg.json")
AT_SITE = {"capture": "ends", "sites": [PRE], "read": POST, "prompts": 2}
EXPERIMENT = {
    **AT_SITE,
    "bases": ["real"],
    "directions": ["isotropic"],
    "prompts": 4,
}
BASE: dict[str, Any] = {
    "study": "small",
    "model": {"source": {"kind": "gguf", "path": "models/tiny.Q4.gguf", "sha256": "ab" * 32}},
    "corpus": {"sources": [{"kind": "file", "path": "text.txt"}]},
    "tokens": {"prompts": {"length": 8, "train": 20, "test": 6, "shards": 2}},
    "statements": {"truth": {"generated": ["cities"], "files": {"own": "own.csv"}}},
    "concepts": {"sofas": {"kind": "unions"}, "grades": {"kind": "intensity"}},
    "captures": {
        "sofas": {"tokens": "sofas", "hooks": [PRE], "positions": "last"},
        "grades": {"tokens": "grades", "hooks": [PRE], "positions": "last"},
        "whole": {"tokens": "prompts", "hooks": [PRE, POST], "select": {"first_position": 1}},
        "ends": {"tokens": "prompts", "hooks": [PRE], "positions": "last"},
        "drawn": {"tokens": "prompts", "hooks": [PRE], "positions": "last", "weights": "random"},
        "facts": {"tokens": "truth", "hooks": [PRE], "positions": "last"},
    },
    "dictionaries": {
        "both": {
            "capture": "whole",
            "hooks": [PRE],
            "kmeans": {"sizes": [4]},
            "pca": {"ranks": [2]},
            "topk": {**SAE, "k": [2]},
            "l1": {**SAE, "coefficients": [0.5]},
            "splice_sequences": 2,
        }
    },
    "probes": {
        "truth": {
            "capture": "facts",
            "monitoring": {
                "first": [{"probe": "mass_mean", "hook": PRE}],
                "second": [{"probe": "logistic_regression", "hook": PRE}],
            },
        }
    },
    "causal": {"added": {"probes": "truth", "hooks": [PRE]}},
    "toy": {},
    "perturbations": {"plateaus": EXPERIMENT},
    "optima": {"corners": AT_SITE | {"subspaces": {"prompts": 2}}},
    "planes": {"plane": AT_SITE},
    "regions": {"between": {"capture": "ends", "sites": [PRE], "read": POST, "prompts": 4, "clusters": 2}},
    "spikes": {"saes": {"dictionaries": "both", "hook": PRE, "fits": ["topk-n8-k2-s0", "pca-r2"]}},
    "toy_superposition": {},
}
SHARED = (
    "report",
    "splice both",
    "activation_table",
    "rate_distortion",
)  # one job for all: the page, the fits spliced in turn, a table
WHOLE_STUDY = (
    "model",
    "selfcheck",
    "toy",
    "toy_superposition",
    "report",
    "statistics",
    "convert_model",
    "activation_table",
    "rate_distortion",
    "no_settings",
)


def changed(*edits: tuple[str, Any]) -> Study:
    """Read the base study with keys set; a path's keys are parted by slashes."""
    config = copy.deepcopy(BASE)
    for path, value in edits:
        *parents, last = path.split("/")
        section = config
        for key in parents:
            section = section.setdefault(key, {})
        section[last] = value
    return read_study(config)


def members(study: Study) -> Iterator[tuple[str, dict[str, str]]]:
    """List every job's stage and what names it there, shards aside."""
    for stage in WHOLE_STUDY:
        yield stage, {}
    for section, stage in (("tokens", "tokens"), ("statements", "statements"), ("probes", "probes")):
        yield from ((stage, {section: name}) for name in getattr(study, section))
    for stage in ("causal", "causal_prompts"):
        yield from ((stage, {"causal": name}) for name in study.causal)
    yield from (("phrases", {"concept": name}) for name in study.concepts)
    captured = [name for kind in stages.KINDS_OF_CONCEPTS for name in stages.concept_captures(study, kind)]
    yield from (("concepts", {"capture": name}) for name in captured)
    yield from (("cascades", {"probes": name}) for name in stages.monitored(study))
    yield from (("activations", {"capture": name}) for name in study.captures)
    yield from (
        ("perturbation", {"experiment": name, "hook": site})
        for name, member in study.perturbations.items()
        for site in member.sites
    )
    for section in ("optima", "planes", "regions"):
        for name, member in getattr(study, section).items():
            yield from ((section, {section: name, "hook": site}) for site in member.sites)
    yield from (("spikes", {"spikes": name}) for name in study.spikes)
    for capture, hook in stages.hooks_with_moments(study):
        yield "moments", {"capture": capture, "hook": hook}
        for split in stages.SPLITS:
            yield "surrogate", {"null": "gaussian", "capture": capture, "hook": hook, "split": split}
    for name, member in study.dictionaries.items():
        for hook in member.hooks:
            yield "splice", {"dictionaries": name, "hook": hook}
            for data, fit in itertools.product(stages.kinds_of_data(member), stages.fits(member)):
                for stage in ("fit", "dictionary_metrics"):
                    yield stage, {"dictionaries": name, "hook": hook, "data": data, "fit": fit}


def cfgs(study: Study) -> dict[str, str]:
    """Return the text of every job's cfg, as Snakemake compares it."""
    return {
        " ".join([stage, *names.values()]): str(stages.canonical(getattr(stages, stage)(study, **names)))
        for stage, names in members(study)
    }


BEFORE = cfgs(changed())


def rerun_after(*edits: tuple[str, Any]) -> set[str]:
    """Return the stages of which some job has another cfg after an edit."""
    after = cfgs(changed(*edits))
    return {job.split()[0] for job, cfg in BEFORE.items() if after[job] != cfg}


def sorted_all_the_way(value: Any) -> bool:
    if isinstance(value, dict):
        return list(value) == sorted(value) and all(map(sorted_all_the_way, value.values()))
    return not isinstance(value, list) or all(map(sorted_all_the_way, value))


def test_every_cfg_is_plain_and_sorted_by_key():
    for stage, names in members(changed()):
        cfg = stages.canonical(getattr(stages, stage)(changed(), **names))
        assert sorted_all_the_way(cfg), stage
        assert json.loads(json.dumps(cfg, allow_nan=False)) == cfg, stage


def test_canonical_sorts_inside_lists_and_keeps_their_order():
    assert str(stages.canonical({"b": ({"z": 1, "a": 2}, 3), "a": [2, 1]})) == str(
        {"a": [2, 1], "b": [{"a": 2, "z": 1}, 3]}
    )


def test_the_order_of_keys_and_the_way_numbers_are_written_change_no_cfg():
    config = copy.deepcopy(BASE)
    turned = {key: dict(reversed(value.items())) if isinstance(value, dict) else value for key, value in config.items()}
    turned["tokens"] = {"prompts": {"shards": "2", "test": 6.0, "train": "2e1", "length": 8.0}}
    assert cfgs(read_study(dict(reversed(turned.items())))) == BEFORE


@pytest.mark.parametrize(
    "edit",
    [
        ("dictionaries/both/kmeans/sizes", [16, 4]),
        ("dictionaries/both/kmeans/seeds", [1, 0]),
        ("dictionaries/both/pca/ranks", [1, 2]),
        ("dictionaries/both/topk/k", [1, 2]),
        ("dictionaries/both/topk/latents", [4, 8, 16]),
        ("dictionaries/both/l1/coefficients", [2, 0.5]),
        ("dictionaries/both/hooks", [POST, PRE]),
        ("dictionaries/more", {"capture": "ends", "hooks": [PRE], "pca": {"ranks": [2]}}),
        ("captures/another", {"tokens": "prompts", "hooks": [POST]}),
        ("tokens/another", {"length": 4, "train": 2, "test": 2}),
        ("statements/another", {"generated": ["comparisons"]}),
        ("probes/another", {"capture": "facts", "splits": 3}),
        ("causal/another", {"probes": "truth", "hooks": [PRE], "strength": 2}),
        ("perturbations/another", EXPERIMENT | {"capture": "drawn"}),
        ("optima/another", AT_SITE),
        ("planes/another", AT_SITE),
    ],
    ids=lambda edit: edit[0],
)
def test_adding_a_member_changes_no_other_members_cfg(edit):
    after = cfgs(changed(edit))
    assert len(after) > len(BEFORE)
    assert {job for job, cfg in BEFORE.items() if after[job] != cfg and not job.startswith(SHARED)} == set()


def test_the_device_is_in_no_cfg():
    assert cfgs(changed(("compute/device", "cuda"))) == BEFORE
    assert cfgs(changed(("compute/threads", 7))) == BEFORE
    assert "device" not in "".join(BEFORE.values())


@pytest.mark.parametrize(
    ("edit", "stages_that_run"),
    [
        (("compute/batch_tokens", 64), {"activations"}),
        (("compute/rows_per_launch", 64), {"perturbation", "optima", "planes", "regions", "causal"}),
        (("captures/whole/storage", "float32"), {"activations"}),
        (
            ("captures/whole/select/first_position", 2),
            {"moments", "surrogate", "fit", "dictionary_metrics", "splice", "spikes"},
        ),
        (("captures/whole/select/norm_outliers", 9), {"moments", "surrogate"}),
        (("tokens/prompts/length", 9), {"tokens"}),
        (("probes/truth/splits", 3), {"probes", "cascades"}),
        (("probes/truth/test_fraction", 0.4), {"probes", "cascades", "causal", "causal_prompts"}),
        (("causal/added/strength", 2), {"causal"}),
        (("causal/added/scaling", "class_distance"), {"causal"}),
        (("causal/added/shots", 2), {"causal_prompts"}),
        (("causal/added/positions", [-1]), {"causal", "causal_prompts"}),
        (("probes/truth/C", 3), {"probes"}),
        (("concepts/sofas/template", "a {texture} {colour} {furniture}"), {"phrases"}),
        (("concepts/grades/folds", 4), {"concepts"}),
        (("probes/truth/monitoring/shares", [0.5]), {"cascades"}),
        (("perturbations/plateaus/draws", 3), {"perturbation"}),
        (("optima/corners/resolution", 3), {"optima"}),
        (("optima/corners/subspaces/angle_deg", 10), {"optima"}),
        (("planes/plane/resolution", 9), {"planes"}),
        (("dictionaries/both/kmeans/tolerance", 0.1), {"fit"}),
        (("dictionaries/both/splice_sequences", 3), {"splice"}),
        (("title", "Another"), set()),
        (("toy/draws", 3), {"toy"}),
        (("regions/between/clusters", 3), {"regions"}),
        (("regions/between/cells", {"study": "both", "fit": "kmeans-k4-s0"}), set()),  # an input
        (("spikes/saes/pairs", 7), {"spikes"}),
        (("spikes/saes/fits", ["pca-r2"]), set()),  # inputs
        (("toy_superposition/k", 3), {"toy_superposition"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_key_is_in_the_cfg_of_the_stages_that_use_it_alone(edit, stages_that_run):
    assert rerun_after(edit) == stages_that_run | {"report"}


def test_the_gauge_is_in_the_cfg_of_all_that_run_the_model():
    expected = {"model", "selfcheck", "activations", "splice", "perturbation", "optima", "planes", "regions", "report"}
    expected |= {"causal"}
    expected |= {"dictionary_metrics"}  # its random directions
    assert rerun_after(("model/gauge", "centred")) == expected


def test_the_studys_seed_is_in_every_cfg_that_draws():
    exact = {"model", "phrases", "convert_model", "activations", "activation_table", "rate_distortion", "no_settings"}
    assert rerun_after(("seed", 1)) == {job.split()[0] for job in BEFORE} - exact | {"activations"}
    assert cfgs(changed(("seed", 1)))["activations ends"] == BEFORE["activations ends"]


def test_random_weights_are_drawn_once_for_all_and_only_where_asked():
    drawn, trained = (stages.activations(changed(), name)["model"] for name in ("drawn", "ends"))
    assert drawn == trained | {"random_weights_seed": seed_for(0, "random weights")}


def test_every_seed_is_that_of_the_members_own_key():
    study = changed()
    fit = {"dictionaries": "both", "hook": PRE, "fit": "kmeans-k4-s0"}
    assert stages.fit(study, data="real", **fit)["seed"] == seed_for(0, "fit", "both", PRE, "kmeans-k4-s0")
    assert stages.fit(study, data="gaussian", **fit)["seed"] == stages.fit(study, data="real", **fit)["seed"]
    assert stages.moments(study, "whole", PRE)["seed"] == seed_for(0, "moments", "whole", PRE)


def test_fits_to_activations_of_one_text_are_resampled_by_the_same_documents():
    study = changed(
        ("captures/drawn", {"tokens": "prompts", "hooks": [PRE], "weights": "random"}),
        ("dictionaries/both/untrained", "drawn"),
    )
    text = seed_for(0, "documents", study.captures[study.dictionaries["both"].capture].tokens, "text")
    seeds = {
        data: {
            stages.dictionary_metrics(study, "both", PRE, data, fit)["documents_seed"]
            for fit in ("pca-r2", "kmeans-k4-s0")
        }
        for data in ("real", "untrained", "gaussian", "shuffled")
    }
    assert seeds["real"] == seeds["untrained"] == {text}
    # A surrogate's rows are nobody's documents: its resamples are its own, the same for all fits to it.
    assert len(seeds["gaussian"] | seeds["shuffled"] | {text}) == 3


def test_fits_that_draw_for_themselves_have_seeds_of_their_own():
    member = changed().dictionaries["both"]
    seeds = {stages.fit(changed(), "both", PRE, "real", fit)["seed"] for fit in stages.fits(member)}
    assert len(seeds) == len(stages.fits(member))


def test_a_surrogates_rows_are_all_used():
    positions = [stages.fit(changed(), "both", PRE, data, "pca-r2")["first_position"] for data in ("real", "gaussian")]
    assert positions == [1, 0]


def test_fits_are_named_by_what_sets_them_apart():
    found = stages.fits(changed().dictionaries["both"])
    topk = ["topk-n8-k2-s0", "topk-n16-k2-s0"]
    assert list(found) == ["kmeans-k4-s0", "pca-r2", *topk, "l1-n8-c0.5-s0", "l1-n16-c0.5-s0"]
    assert found["kmeans-k4-s0"] == {"n_clusters": 4, "max_iterations": 100, "tolerance": 1e-4}
    assert found["pca-r2"] == {"rank": 2}
    assert found["topk-n16-k2-s0"].items() >= {"architecture": "topk", "n_latents": 16, "k": 2, "vectors": 100}.items()
    assert found["l1-n8-c0.5-s0"].items() >= {"architecture": "l1", "n_latents": 8, "l1_coefficient": 0.5}.items()
    assert not {"latents", "seeds", "coefficients"} & {key for settings in found.values() for key in settings}


def test_every_architecture_has_fits_of_its_own():
    own = {"batch_topk": {"k": [2]}, "matryoshka": {"k": [2], "prefixes": [0.5, 1]}, "jumprelu": {"l0": [2.5]}}
    study = changed(*((f"dictionaries/both/{family}", {**SAE, **keys}) for family, keys in own.items()))
    found = stages.fits(study.dictionaries["both"])
    assert found["batch_topk-n8-k2-s0"].items() >= {"architecture": "batch_topk", "n_latents": 8, "k": 2}.items()
    assert found["matryoshka-n8-k2-s0"].items() >= {"architecture": "matryoshka", "prefixes": [0.5, 1]}.items()
    assert found["jumprelu-n8-l2.5-s0"].items() >= {"architecture": "jumprelu", "l0": 2.5, "bandwidth": 0.05}.items()


def test_no_two_fits_share_a_name_however_close_their_settings():
    values = [1e-05, 1.00000001, 1.00000002, 1, 1e12, 123456789.5]
    found = stages.fits(changed(("dictionaries/both/l1/coefficients", values)).dictionaries["both"])
    names = [name for name in found if name.startswith("l1-n8")]
    assert [found[name]["l1_coefficient"] for name in names] == values
    assert names[0] == "l1-n8-c0.00001-s0"


@pytest.mark.parametrize(
    ("fit", "family", "k", "seed"),
    [
        ("kmeans-k256-s3", "kmeans", 1, 3),
        ("pca-r16", "pca", 16, 0),
        ("topk-n2048-k64-s1", "topk", 64, 1),
        ("batch_topk-n2048-k8-s0", "batch_topk", 8, 0),
        ("jumprelu-n2048-l32-s0", "jumprelu", None, 0),
        ("l1-n2048-c0.00001-s2", "l1", None, 2),
    ],
)
def test_labels_are_read_off_a_fits_name(fit, family, k, seed):
    assert stages.fit_labels(fit) == {"family": family, "fit": fit, "k": k, "seed": seed}


def test_tokens_are_stored_by_split_and_shard_and_statements_whole():
    study = changed()
    assert stages.parts(study, "prompts") == ["train-000", "train-001", "test-000", "test-001"]
    assert stages.parts(study, "truth") == ["all-000"]
    assert stages.shards(study, "prompts", "all") == stages.shards(study, "truth", "train") == []


def test_moments_are_wanted_by_dictionaries_and_perturbations():
    assert stages.hooks_with_moments(changed()) == [("ends", PRE), ("whole", PRE)]


def test_what_the_model_must_be_able_to_do_is_listed_by_its_place_in_the_config():
    assert stages.checks(changed()) == {
        "gauge": "raw",
        "hooks": {
            "captures.sofas.hooks": [PRE],
            "captures.grades.hooks": [PRE],
            "captures.whole.hooks": [PRE, POST],
            "captures.ends.hooks": [PRE],
            "captures.drawn.hooks": [PRE],
            "captures.facts.hooks": [PRE],
        },
        "lengths": {"tokens.prompts.length": 8},
        "sites": {
            place: [[PRE], POST]
            for place in ("perturbations.plateaus", "optima.corners", "planes.plane", "regions.between")
        },
    }


def test_what_a_study_leaves_out_has_no_tables_and_figures():
    study = read_study({"study": "bare", "model": BASE["model"]})
    assert stages.tables(study) == []
    assert stages.figures(study) == {}
    assert stages.user_files(study) == {"tokens": [], "statements": []}


def test_every_part_of_a_study_has_its_figures():
    figures = stages.figures(changed())
    assert {"toy_truth", "probe_layers", "unexplained_variance", "loss_recovered", "training_curves"} <= set(figures)
    assert {"curves_plateaus", "thresholds_plateaus", "histograms_plateaus"} <= set(figures)
    assert not {"layers_plateaus", "comparisons", "training"} & set(figures)  # one family at one site
    several = EXPERIMENT | {"capture": "whole", "sites": [PRE, POST], "bases": ["real", "covariance_random"]}
    assert {"layers_plateaus", "comparisons"} <= set(stages.figures(changed(("perturbations/plateaus", several))))
    assert {"triangles_corners", "subspaces_corners", "planes_plane"} <= set(figures)
    assert "subspaces_corners" not in stages.figures(changed(("optima/corners/subspaces", None)))
    assert {"regions_between", "spikes_saes", "toy_superposition"} <= set(figures)
    assert "random_weights_control" not in figures  # there is no experiment to compare with
    both = changed(("perturbations/plateaus_random_weights", EXPERIMENT | {"capture": "drawn"}))
    assert "random_weights_control" in stages.figures(both)


def test_a_converted_model_lies_under_its_name_and_sum():
    assert stages.converted_model(changed()) == "resources/models/tiny.Q4-abababababab"
    package = {"kind": "package", "name": "p", "version": "1", "sha256": "cd" * 32, "member": "inside/tiny.gguf"}
    assert stages.converted_model(changed(("model/source", package))) == "resources/models/tiny-cdcdcdcdcdcd"
    assert stages.converted_model(changed(("model/source", {"kind": "folder", "path": "m"}))) is None


def test_a_wheel_is_described_wherever_the_study_names_it():
    package = {"kind": "package", "name": "texts", "version": "0.3", "sha256": "cd" * 32, "member": "m"}
    study = changed(("corpus/sources", [{**package, "format": "lines"}]))
    assert stages.package(study, "texts-0.3") == {"name": "texts", "version": "0.3", "sha256": "cd" * 32}


def test_files_that_users_name_are_listed_and_addresses_have_local_copies():
    assert stages.user_files(changed()) == {"tokens": ["text.txt"], "statements": ["own.csv"]}
    address = "https://example.org/sets/cities.csv"
    study = changed(("statements/truth/files/far", address))
    copy_of = stages.user_files(study)["statements"][1]
    assert copy_of.startswith("resources/statements/")
    assert copy_of.endswith("-cities.csv")
    assert stages.statement_file(study, copy_of.rsplit("/", 1)[1]) == {"address": address}
    assert stages.statements(study, "truth")["statements"]["files"] == {"own": "own.csv", "far": copy_of}


def test_only_experiments_made_from_fits_have_them_in_their_cfg():
    study = changed(
        ("perturbations/latents", EXPERIMENT | {"capture": "whole", "position": 7, "bases": ["reconstruction"]}),
        ("perturbations/latents/dictionary", {"study": "both", "fit": "l1-n8-c0.5-s0"}),
    )
    plain, made = (stages.perturbation(study, name, PRE) for name in ("plateaus", "latents"))
    assert not {"dictionary", "clusters", "probe"} & set(plain)
    assert made["dictionary"] == {"study": "both", "fit": "l1-n8-c0.5-s0"}
    assert stages.fits_used(study, "plateaus", PRE) == {}
    assert stages.fits_used(study, "latents", PRE) == {
        "dictionary": [f"dictionaries/both/{PRE}/real/l1-n8-c0.5-s0/{file}" for file in SAE_FILES]
    }


def test_cells_are_those_of_the_fit_at_the_sites_that_it_has():
    study = changed(
        ("captures/ends/hooks", [PRE, POST]),
        ("regions/between/sites", [PRE, POST]),
        ("regions/between/cells", {"study": "both", "fit": "kmeans-k4-s0"}),
    )
    assert stages.cells(study, "between", PRE) == [f"dictionaries/both/{PRE}/real/kmeans-k4-s0.safetensors"]
    assert stages.cells(study, "between", POST) == []
    assert stages.cells(changed(), "between", PRE) == []


def test_variants_of_kmeans_are_fits_of_their_own_and_read_outs_name_the_fit_they_read():
    study = changed(
        ("dictionaries/both/kmeans/variants", ["centroid", "nearest", "spherical"]),
        ("dictionaries/both/kmeans/pca_prefix", [0, 2]),
    )
    fits = {name: cfg for name, cfg in stages.fits(study.dictionaries["both"]).items() if "kmeans" in name}
    assert [*fits] == [
        *("kmeans-k4-s0", "pca_kmeans-p2-k4-s0", "kmeans_nearest-k4-s0", "pca_kmeans_nearest-p2-k4-s0"),
        *("kmeans_spherical-k4-s0", "pca_kmeans_spherical-p2-k4-s0"),
    ]
    assert stages.read_from("pca_kmeans_nearest-p2-k4-s0") == "pca_kmeans-p2-k4-s0"
    assert fits["pca_kmeans_nearest-p2-k4-s0"] == {"family": "kmeans_nearest"}
    assert (
        fits["pca_kmeans_spherical-p2-k4-s0"] | {"pca_prefix": 2, "spherical": True}
        == fits["pca_kmeans_spherical-p2-k4-s0"]
    )
    assert stages.fit_labels("pca_kmeans_nearest-p2-k4-s0")["k"] == 3
    changed_cfgs = cfgs(study)
    assert all(changed_cfgs[job] == cfg for job, cfg in BEFORE.items() if "kmeans-k4" in job)


def test_a_read_out_without_the_fit_it_reads_is_refused():
    with pytest.raises(StudyError, match="variants: `unit` and `nearest` read the fit of `centroid` out"):
        changed(("dictionaries/both/kmeans/variants", ["unit"]))


def test_nulls_are_fits_and_data_of_their_own_and_change_no_other():
    study = changed(
        ("dictionaries/both/nulls", ["gaussian", "shuffled"]),
        ("dictionaries/both/random_points", {"sizes": [4]}),
        ("dictionaries/both/token_identity", True),
        ("dictionaries/both/random_directions", {"latents": [8], "k": [2]}),
        ("captures/drawn", {"tokens": "prompts", "hooks": [PRE], "weights": "random", "select": {"first_position": 3}}),
        ("dictionaries/both/untrained", "drawn"),
    )
    member = study.dictionaries["both"]
    names = ["token_identity", "random_points-k4-s0", "random_directions-n8-k2-s0"]
    assert [*stages.fits(member)][-3:] == names
    assert [stages.fit_labels(name)["k"] for name in names] == [1, 1, 2]
    assert [stages.is_sae(name) for name in names] == [False, False, True]
    assert stages.fit_files(names[2]) == [f"{names[2]}/sae_weights.safetensors", f"{names[2]}/cfg.json"]
    assert stages.kinds_of_data(member) == ["real", "gaussian", "shuffled", "untrained"]
    assert ("drawn", PRE) in stages.hooks_with_moments(study)
    assert stages.fit(study, "both", PRE, "untrained", "pca-r2")["first_position"] == 3
    after = cfgs(study)
    moved = [
        job for job, cfg in BEFORE.items() if job.split()[0] in ("fit", "dictionary_metrics") and after[job] != cfg
    ]
    assert not moved


def test_a_null_may_have_some_families_alone_and_read_outs_bring_their_centroids():
    study = changed(
        ("dictionaries/both/nulls", ["gaussian", "shuffled"]),
        ("dictionaries/both/kmeans/variants", ["centroid", "unit"]),
        ("dictionaries/both/null_families", {"shuffled": ["kmeans_unit"]}),
    )
    member = study.dictionaries["both"]
    assert stages.fits_to(member, "real") == stages.fits_to(member, "gaussian") == [*stages.fits(member)]
    assert stages.fits_to(member, "shuffled") == ["kmeans-k4-s0", "kmeans_unit-k4-s0"]


@pytest.mark.parametrize(
    ("families", "message"),
    [
        ({"shuffled": ["pca"]}, "null_families: the study has no null 'shuffled'; it has: gaussian"),
        (
            {"gaussian": ["sae"]},
            "null_families.gaussian: 'sae' is no family of this study; there are: kmeans, pca, topk",
        ),
        ({"gaussian": []}, "null_families.gaussian: .*at least 1"),
    ],
)
def test_a_null_or_a_family_that_is_not_there_is_refused(families, message):
    with pytest.raises(StudyError, match=message):
        changed(("dictionaries/both/null_families", families))


def test_the_untrained_null_must_be_of_the_same_tokens_and_hooks():
    with pytest.raises(
        StudyError, match="untrained: there is no capture with `weights: random` of the tokens 'prompts'"
    ):
        changed(("dictionaries/both/untrained", "ends"))
