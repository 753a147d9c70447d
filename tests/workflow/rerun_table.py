"""For every key of the config: an edit, and the rules of which a job of its own changes; what these feed follows them through the DAG.

Rules that only put together what others made are left out, and `report`, which shows every key but those of `NOT_SHOWN`."""

from __future__ import annotations

from typing import Any

import tiny

SHA = "0" * 64
WHEEL = {"kind": "package", "name": "texts", "version": "1.0", "sha256": SHA, "member": "texts/wiki.txt"}
MODELS: dict[str, dict[str, Any]] = {
    "hub": {"kind": "hub", "repo": "someone/model", "revision": "main"},
    "folder": {"kind": "folder", "path": "model"},
    "gguf": {"kind": "gguf", "path": "model.gguf", "sha256": SHA},
    "package": {**WHEEL, "name": "weights", "member": "weights/model.gguf"},
}
NOT_SHOWN = {"compute.device", "compute.threads", "archive.activations", "archive.authors", "archive.license"}
"""Keys that no page shows."""


def study(model: str = "hub") -> dict[str, Any]:
    """The tiny study, with all that it lacks; captures of checkpoints need a model of the hub."""
    config = tiny.config("llama")
    config["model"]["source"] = dict(MODELS[model])
    config["corpus"]["sources"] += [
        {"kind": "hub", "repo": "someone/text", "revision": "main"},
        {**WHEEL, "format": "doc"},
    ]
    config["concepts"]["grades"]["adjectives"] += ["hot", "dry"]
    config["statements"]["more"] = {
        "files": {"mine": "mine.csv"},
        "entity_columns": {"mine": ["city"]},
        "geometry_of_truth": ["larger_than"],
    }
    contexts = config["captures"]["contexts"]
    config["captures"]["random"] = {**contexts, "weights": "random"}
    if model == "hub":
        config["captures"]["checkpoint"] = {**contexts, "revision": "step1"}
    dictionaries = config["dictionaries"]["residual"]
    dictionaries |= {
        "jumprelu": {"latents": [48], "vectors": 2000, "batch_size": 64, "l0": [4]},
        "random_points": {"sizes": [4]},
        "random_directions": {"latents": [48], "k": [4]},
        "null_families": {"gaussian": ["kmeans"]},
        "untrained": "random",
    }
    dictionaries["given"]["hub"] = {"repo": "someone/saes", "revision": "main", "folder": "sae"}
    config["dictionaries"]["other"] = {
        **{key: dictionaries[key] for key in ("capture", "hooks", "topk", "kmeans")},
        "nulls": [],
    }
    config["captures"]["again"] = config["captures"]["statements"]
    config["probes"]["other"] = {"capture": "statements", "splits": 2}
    for name in ("prompts", "untrained"):
        config["captures"][name]["hooks"] = ["blocks.{0..1}.hook_resid_pre"]
    config["captures"]["contexts"]["hooks"] = ["blocks.{0..1}.hook_resid_post"]
    config["captures"]["random"]["hooks"] = ["blocks.{0..1}.hook_resid_post"]
    config["captures"]["random_again"] = config["captures"]["random"]
    config["dictionaries"]["both"] = {
        **{key: dictionaries[key] for key in ("capture", "kmeans")},
        "hooks": ["blocks.{0..1}.hook_resid_post"],
        "nulls": [],
    }
    fits = {"fits": ["kmeans-k4-s0"], "hook": "blocks.0.hook_resid_post"}
    config["spikes"] |= {name: {**fits, "dictionaries": of} for name, of in {"toy": "residual", "both": "both"}.items()}
    config["regions"]["at_fits"] = {
        **config["regions"]["between_prompts"],
        "capture": "contexts",
        "sites": ["blocks.0.hook_resid_post"],
        "cells": {"study": "residual", "fit": "kmeans-k4-s0"},
    }
    return config


TOKENS = {"tokens_contexts", "tokens_prompts"}
ACTIVATIONS = {
    f"activations_{name}"
    for name in (
        *("sofas", "grades", "contexts", "statements", "prompts"),
        *("untrained", "random", "random_again", "checkpoint", "again"),
    )
}
EXPERIMENTS = {"perturbation", "optima", "planes", "regions"}
RUN_THE_MODEL = ACTIVATIONS | EXPERIMENTS | {"selfcheck", "splice", "causal"}
DESCRIBE_IT = {"model", "checkpoint"}
READ_TEXT = TOKENS | {"statements", "phrases", "causal_prompts", "top_contexts"}
SAES = {"sae", "dictionary_metrics", "splice"}
KMEANS = {"kmeans", "dictionary_metrics", "splice"}
DICTIONARY = {"kmeans", "pca", "sae", "null_dictionary", "random_directions"}

OF_THE_STUDY: dict[str, tuple[Any, set[str]]] = {
    "title": ("Another", set()),
    "seed": (
        1,
        RUN_THE_MODEL - ACTIVATIONS
        | {"activations_untrained", "activations_random", "activations_random_again", "moments", "surrogate"}
        | DICTIONARY
        | {"dictionary_metrics", "matches", "top_contexts", "probes", "cascades", "causal_prompts", "toy"}
        | TOKENS
        | {"statements", "concepts", "spikes", "toy_superposition", "probe_tables", "causal_tables"}
        | {"perturbation_tables", "optima_tables", "plane_tables", "region_tables", "spike_tables"},
    ),
    "compute.device": ("cpu", set()),
    "compute.threads": (2, set()),
    "compute.batch_tokens": (64, ACTIVATIONS),
    "compute.rows_per_launch": (64, EXPERIMENTS | {"causal"}),
    "model.dtype": ("bfloat16", DESCRIBE_IT | RUN_THE_MODEL),
    "model.gauge": ("centred", DESCRIBE_IT | RUN_THE_MODEL | {"dictionary_metrics"}),
    "model.trust_remote_code": (True, DESCRIBE_IT | RUN_THE_MODEL | READ_TEXT),
    "archive.activations": (True, {"archive"}),
    "archive.authors": (["Ada"], {"archive"}),
    "archive.license": ("https://example.org/licence", {"archive"}),
    "corpus.test_fraction": (0.4, TOKENS),
    "corpus.sources.0.path": ("other.txt", TOKENS),
    "corpus.sources.0.format": ("text", TOKENS),
    "corpus.sources.0.text_column": ("body", TOKENS),
    "corpus.sources.0.sha256": (SHA, TOKENS),
    "corpus.sources.1.repo": ("someone/else", TOKENS),
    "corpus.sources.1.revision": ("v2", TOKENS),
    "corpus.sources.1.files": ("*.parquet", TOKENS),
    "corpus.sources.1.text_column": ("body", TOKENS),
    "corpus.sources.2.name": ("other", TOKENS | {"package"}),
    "corpus.sources.2.version": ("2.0", TOKENS | {"package"}),
    "corpus.sources.2.sha256": ("1" * 64, TOKENS | {"package"}),
    "corpus.sources.2.member": ("texts/c4.txt", TOKENS),
    "corpus.sources.2.format": ("lines", TOKENS),
    "corpus.sources.2.text_column": ("body", TOKENS),
    "tokens.contexts.length": (15, {"tokens_contexts"}),
    "tokens.contexts.bos": (True, {"tokens_contexts"}),
    "tokens.contexts.train": (90, {"tokens_contexts"}),
    "tokens.contexts.test": (39, {"tokens_contexts"}),
    "tokens.contexts.per_document": (1, {"tokens_contexts"}),
    "tokens.contexts.shards": (
        3,
        {"tokens_contexts", *(f"activations_{name}" for name in ("contexts", "random", "random_again", "checkpoint"))},
    ),
    "statements.truth.generated": (["cities", "comparisons", "neg_cities"], {"statements"}),
    "statements.truth.per_set": (36, {"statements"}),
    "statements.truth.geometry_of_truth": (["larger_than"], {"statements"}),
    "statements.truth.truth_is_universal": (["facts"], {"statements", "statement_file"}),
    "statements.more.files": ({"mine": "other.csv"}, {"statements"}),
    "statements.more.entity_columns": ({"mine": ["river"]}, {"statements"}),
    "statements.truth.contradictions": ("leave_out", {"statements"}),
    "statements.truth.bos": (True, {"statements", "causal_prompts"}),
    "concepts.sofas.template": ("one {texture} {colour} {furniture}", {"phrases"}),
    "concepts.sofas.parts": (
        {"texture": ["soft", "rough"], "colour": "tableau", "furniture": ["bed", "desk"]},
        {"phrases"},
    ),
    "concepts.sofas.folds": (4, {"concepts"}),
    "concepts.sofas.bos": (True, {"phrases"}),
    "concepts.grades.template": ("so {grade} {adjective}", {"phrases"}),
    "concepts.grades.neutral": ("so {adjective}", {"phrases"}),
    "concepts.grades.grades": (["fairly", "very", "extremely"], {"phrases"}),
    "concepts.grades.adjectives": (["cold", "old", "big", "wet", "dry", "sad"], {"phrases"}),
    "concepts.grades.folds": (3, {"concepts"}),
    "concepts.grades.bos": (True, {"phrases"}),
    "captures.untrained.tokens": ("contexts", {"activations_untrained", "moments", "perturbation"}),
    "captures.prompts.hooks": (["blocks.{0..1}.hook_resid_pre", "blocks.1.hook_resid_post"], {"activations_prompts"}),
    "captures.prompts.positions": ("all", {"activations_prompts"}),
    "captures.contexts.storage": ("float32", {"activations_contexts"}),
    "captures.untrained.weights": ("trained", {"activations_untrained", "perturbation"}),
    "captures.checkpoint.revision": ("step2", {"checkpoint", "activations_checkpoint"}),
    "captures.contexts.select.first_position": (
        2,
        {"moments", "surrogate", "dictionary_metrics", "splice", "top_contexts", "spikes"} | DICTIONARY,
    ),
    "captures.contexts.select.norm_outliers": (9, {"moments", "surrogate"}),
}
D = "dictionaries.residual"
OF_FITS = {"dictionary_metrics", "matches", "top_contexts"}
OF_DICTIONARIES: dict[str, tuple[Any, set[str]]] = {
    "dictionaries.both.capture": ("random", {"kmeans", "moments"} | OF_FITS),
    "dictionaries.other.hooks": (["blocks.{0..1}.hook_resid_post"], {"kmeans", "sae"} | OF_FITS),
    f"{D}.untrained": ("random_again", DICTIONARY | {"dictionary_metrics", "moments"}),
    f"{D}.nulls": (["gaussian", "shuffled"], {"surrogate", "dictionary_metrics", "matches"} | DICTIONARY),
    f"{D}.null_families": ({"gaussian": ["kmeans", "pca"]}, {"pca", "dictionary_metrics"}),
    f"{D}.token_identity": (True, {"null_dictionary", "dictionary_metrics"}),
    f"{D}.splice_sequences": (3, {"splice"}),
    f"{D}.kmeans.sizes": ([4, 8, 16], KMEANS),
    f"{D}.kmeans.seeds": ([0, 1], KMEANS),
    f"{D}.kmeans.variants": (["centroid", "unit"], {"kmeans_read_out", "dictionary_metrics", "splice"}),
    f"{D}.kmeans.pca_prefix": ([0, 2], KMEANS),
    f"{D}.kmeans.max_iterations": (99, {"kmeans"}),
    f"{D}.kmeans.tolerance": (0.01, {"kmeans"}),
    f"{D}.pca.ranks": ([2, 3], {"pca", "dictionary_metrics", "splice"}),
    f"{D}.random_points.sizes": ([4, 5], {"null_dictionary", "dictionary_metrics", "splice"}),
    f"{D}.random_points.seeds": ([0, 1], {"null_dictionary", "dictionary_metrics", "splice"}),
    **{
        f"{D}.random_directions.{key}": (value, {"random_directions", "dictionary_metrics", "splice"})
        for key, value in {"latents": [48, 64], "k": [4, 5], "seeds": [0, 1]}.items()
    },
    **{
        f"{D}.{family}.{key}": (value, SAES)
        for family, axis in {
            **{"topk": "k", "batch_topk": "k", "matryoshka": "k", "jumprelu": "l0", "l1": "coefficients"}
        }.items()
        for key, value in {"latents": [48, 64], "seeds": [0, 1], axis: [4, 5]}.items()
    },
    **{
        f"{D}.{family}.{key}": (value, {"sae"})
        for family in ("topk", "batch_topk", "matryoshka", "jumprelu", "l1")
        for key, value in {"vectors": 1000, "batch_size": 32, "learning_rate": 1e-3, "warmup_fraction": 0.1}.items()
    },
    **{
        f"{D}.{family}.{key}": (value, {"sae"})
        for family in ("topk", "batch_topk", "matryoshka")
        for key, value in {"aux_coefficient": 0.5, "dead_after_vectors": 500}.items()
    },
    f"{D}.matryoshka.prefixes": ([0.5, 1], {"sae"}),
    f"{D}.jumprelu.l0_coefficient": (2, {"sae"}),
    f"{D}.jumprelu.bandwidth": (0.1, {"sae"}),
    f"{D}.jumprelu.sparsity_warmup_fraction": (0.1, {"sae"}),
    f"{D}.l1.sparsity_warmup_fraction": (0.1, {"sae"}),
    f"{D}.given.gated.folder": ("elsewhere", {"given"}),
    f"{D}.given.hub.repo": ("someone/else", {"given"}),
    f"{D}.given.hub.revision": ("v2", {"given"}),
}
P, C, TOY, SUPER = "probes.truth", "causal.directions", "toy", "toy_superposition"
OF_PROBES: dict[str, tuple[Any, set[str]]] = {
    f"{P}.capture": ("again", {"probes", "cascades", "causal"}),
    f"{C}.probes": ("other", {"causal", "causal_prompts"}),
    f"{P}.probes": (["logistic_regression", "mass_mean"], {"probes"}),
    f"{P}.position": (-1, {"probes", "cascades", "causal"}),
    f"{P}.splits": (2, {"probes", "cascades"}),
    f"{P}.test_fraction": (0.4, {"probes", "cascades", "causal", "causal_prompts"}),
    f"{P}.C": (0.1, {"probes"}),
    f"{P}.C_path": ([0.1], {"probes"}),
    f"{P}.centring": (["train_mean", "none"], {"probes"}),
    f"{P}.pseudo_inverse_tolerance": (1e-3, {"probes"}),
    f"{P}.pictured": ("blocks.0.hook_resid_post", {"probes"}),
    f"{P}.monitoring.first.0.probe": ("logistic_regression", {"cascades"}),
    f"{P}.monitoring.first.0.hook": ("blocks.1.hook_resid_post", {"cascades"}),
    f"{P}.monitoring.second.0.probe": ("mass_mean", {"cascades"}),
    f"{P}.monitoring.second.0.hook": ("blocks.0.hook_resid_post", {"cascades"}),
    f"{P}.monitoring.label": (0, {"cascades"}),
    f"{P}.monitoring.false_positive_rates": ([0.3], {"cascades"}),
    f"{P}.monitoring.shares": ([0.4], {"cascades"}),
    f"{C}.fits": (["mass_mean"], {"causal"}),
    f"{C}.train_set": ("cities", {"causal"}),
    f"{C}.sets": (["cities"], {"causal_prompts"}),
    f"{C}.hooks": (["blocks.0.hook_resid_post"], {"causal"}),
    f"{C}.together": (True, {"causal"}),
    f"{C}.positions": ([-1], {"causal", "causal_prompts"}),
    f"{C}.statements": (4, {"causal_prompts"}),
    f"{C}.template": ("{statement} so:", {"causal_prompts"}),
    f"{C}.answer_true": ("A", {"causal_prompts"}),
    f"{C}.answer_false": ("B", {"causal_prompts"}),
    f"{C}.shots": (2, {"causal_prompts"}),
    f"{C}.scaling": ("class_distance", {"causal"}),
    f"{C}.strength": (2, {"causal"}),
    f"{C}.random_directions": (51, {"causal"}),
    **{
        f"{TOY}.{key}": (value, {"toy"})
        for key, value in {
            **{"probes": ["mass_mean"], "d_model": 9, "points": 999, "draws": 3},
            **{"nuisance_scale": 9, "cosine": 0.5, "separation": 3},
        }.items()
    },
}
SITES = {"capture": "untrained", "position": 5, "read": "ln_final.hook_normalized", "prompts": 4}
OF_PERTURBATIONS: dict[str, tuple[Any, set[str]]] = {
    **{
        f"{where}.{key}": (value, {rule})
        for where, rule in {
            "perturbations.sensitive_directions": "perturbation",
            "optima.sensitivity_optima": "optima",
            "planes.three_activations": "planes",
            "regions.between_prompts": "regions",
        }.items()
        for key, value in SITES.items()
    },
    **{
        f"perturbations.sensitive_directions.{key}": (value, {"perturbation"})
        for key, value in {
            **{"bases": ["real", "covariance_random"], "directions": ["isotropic"], "paths": ["straight"]},
            **{"length": 3, "draws": 3, "steps": 41, "jensen_shannon": True, "thresholds_nats": [0.4]},
        }.items()
    },
    **{
        f"{where}.sites": (["blocks.0.hook_resid_pre"], {rule, "moments"})
        for where, rule in {
            "perturbations.sensitive_directions": "perturbation",
            "optima.sensitivity_optima": "optima",
            "planes.three_activations": "planes",
            "regions.between_prompts": "regions",
        }.items()
    },
    "perturbations.latents.dictionary.study": ("other", {"perturbation"}),
    "perturbations.latents.dictionary.fit": ("batch_topk-n48-k4-s0", {"perturbation"}),
    "perturbations.latents.clusters.study": ("other", {"perturbation"}),
    "perturbations.latents.clusters.fit": ("kmeans-k8-s0", {"perturbation"}),
    "perturbations.latents.probe": ("other", {"perturbation"}),
    "regions.at_fits.cells.study": ("other", {"regions"}),
    "regions.at_fits.cells.fit": ("kmeans-k8-s0", {"regions"}),
    "spikes.toy.dictionaries": ("other", {"spikes"}),
    "spikes.both.hook": ("blocks.1.hook_resid_post", {"spikes"}),
    "spikes.toy.fits": (["kmeans-k8-s0"], {"spikes"}),
    **{
        f"optima.sensitivity_optima.{key}": (value, {"optima"})
        for key, value in {
            **{"kinds": ["toward"], "draws": 2, "resolution": 3, "steps": 41, "thresholds_nats": [0.4]},
            **{"subspaces.prompts": 1, "subspaces.draws": 2, "subspaces.dimensions": [1], "subspaces.angle_deg": 30},
        }.items()
    },
    "planes.three_activations.resolution": (9, {"planes"}),
    "regions.between_prompts.pairs": (2, {"regions"}),
    "regions.between_prompts.steps": (12, {"regions"}),
    "regions.between_prompts.clusters": (3, {"regions"}),
    "spikes.activations.pairs": (9, {"spikes"}),
    "spikes.activations.steps": (7, {"spikes"}),
    **{
        f"{SUPER}.{key}": (value, {SUPER})
        for key, value in {
            **{"d_model": 17, "features": [9], "active": 3, "values": "exponential", "threshold": 0.1},
            **{"k": 2, "pairs": 9, "steps": 7},
        }.items()
    },
}

OF_CHECKPOINTS = {"checkpoint", "activations_checkpoint"}
"""They have a revision of their own, and need a repository."""
OF_MODELS: dict[str, tuple[Any, set[str]]] = {
    f"{kind}: model.source.{key}": (
        value,
        (DESCRIBE_IT | RUN_THE_MODEL | READ_TEXT | extra) - (OF_CHECKPOINTS if key != "repo" else set()),
    )
    for kind, edits, extra in (
        ("hub", {"repo": "someone/else", "revision": "v2"}, set()),
        ("folder", {"path": "elsewhere"}, set()),
        ("gguf", {"path": "other.gguf", "sha256": "1" * 64}, {"convert_model"}),
        ("package", {"name": "other", "version": "2", "sha256": "1" * 64}, {"convert_model", "package"}),
        ("package", {"member": "weights/other.gguf"}, {"convert_model"}),
    )
    for key, value in edits.items()
}
"""Edits of the source of the model, of each kind."""

TABLE = OF_THE_STUDY | OF_DICTIONARIES | OF_PROBES | OF_PERTURBATIONS | OF_MODELS
