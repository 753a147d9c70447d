"""Which part of a study each stage uses, and which members each stage has.

A stage's cfg holds just the keys it uses, so that changing any other reruns nothing; it is sorted by key, because Snakemake compares its text.
Seeds in a cfg are derived from the study's seed and the member's own key."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from actspace.config.dictionaries import Dictionaries, KMeans
from actspace.config.inputs import Capture, Gguf, Package, PackageText
from actspace.config.perturbations import Experiment, Fit, Perturbation
from actspace.config.study import Study, experiments
from actspace.dictionaries import layout
from actspace.dictionaries.pairs import pairs
from actspace.perturbations import families
from actspace.seeds import seed_for

SPLITS = ("train", "test")
SAES = {
    "topk": ("k", "k"),
    "batch_topk": ("k", "k"),
    "matryoshka": ("k", "k"),
    "jumprelu": ("l0", "l0"),
    "l1": ("coefficients", "l1_coefficient"),
}
"""Families of sparse autoencoders: the key of their section that lists sparsities, and what training calls one of them."""
GIVEN = "given"
"""What stands for the family in the names of SAEs that were trained elsewhere."""
CONTROLS = {
    "late_layer_control": ("sensitive_directions", "late_layer"),
    "random_weights_control": ("plateaus", "plateaus_random_weights"),
}
CLUSTERS = {
    "centroid": "kmeans",
    "unit": "kmeans_unit",
    "nearest": "kmeans_nearest",
    "spherical": "kmeans_spherical",
}
"""Family of each variant of k-means; behind a PCA prefix it has `pca_` before it."""
CLUSTERINGS = (*CLUSTERS.values(), *(f"pca_{family}" for family in CLUSTERS.values()))
KINDS_OF_CONCEPTS = ("unions", "intensity")
TRUTH, PERTURBATIONS, BETWEEN = "Truth directions", "Perturbations", "Regions and spikes"
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "toy": (TRUTH, ("toy_truth", "toy_points", "toy_directions")),
    "probes": (TRUTH, ("probe_summary", "probe_angles", "probe_points", "probe_arrows")),
    "causal": (TRUTH, ("causal_effects",)),
    "cascades": (TRUTH, ("probe_cascades",)),
    "concepts": ("Concepts", ("concept_unions", "concept_intensity")),
    "dictionaries": (
        "Clustering and sparse autoencoders",
        (
            *("dictionary_metrics", "dictionary_densities", "dictionary_preactivations"),
            *("training_curves", "dictionary_structure", "dictionary_matches", "rate_distortion"),
        ),
    ),
    "curves": (PERTURBATIONS, ("perturbation_curves",)),
    "crossings": (
        PERTURBATIONS,
        ("perturbation_thresholds", "perturbation_statistics", "perturbation_comparisons"),
    ),
    "optima": (PERTURBATIONS, ("triangles", "optima_statistics")),
    "planes": (PERTURBATIONS, ("planes", "plane_corners", "plane_statistics")),
    "regions": (BETWEEN, ("regions", "region_statistics")),
    "spikes": (BETWEEN, ("spikes", "spike_statistics")),
}
"""Parts of a study whose figures are drawn together: the section of the report, and the tables that they need."""
FIGURE_FILES = ("svg", "pdf", "png", "rst")
"""What a figure is written as: first what the page shows. `report.export` writes them, and is too heavy to be imported here."""
ONLY_DRAWN = (
    *(
        "toy_points",
        "toy_directions",
        "probe_points",
        "probe_arrows",
        "perturbation_curves",
        "triangles",
        "planes",
        "regions",
        "spikes",
    ),
    "dictionary_densities",
    "dictionary_preactivations",
)
"""Tables too long, or too plain, for anybody to open as CSV."""


def canonical(value: Any) -> Any:
    """Sort a cfg by key, all the way down."""
    if isinstance(value, dict):
        return {key: canonical(value[key]) for key in sorted(value)}
    return [canonical(item) for item in value] if isinstance(value, list | tuple) else value


# --- members ---------------------------------------------------------------------------------------------------------------------------------


def shards(study: Study, tokens: str, split: str) -> list[str]:
    """List the shards of a token set, as they stand in file names; statements and phrases are one shard of the split `all`."""
    if tokens in study.statements or tokens in study.concepts:
        return ["000"] if split == "all" else []
    return [f"{i:03d}" for i in range(study.tokens[tokens].shards)] if split in SPLITS else []


def parts(study: Study, tokens: str) -> list[str]:
    """List the files of a token set, or of a capture of it: split and shard."""
    return [f"{split}-{shard}" for split in (*SPLITS, "all") for shard in shards(study, tokens, split)]


def revisions(study: Study) -> list[str]:
    """List the revisions of the model that captures read, beside its own."""
    return sorted({capture.revision for capture in study.captures.values() if capture.revision})


def concept_captures(study: Study, kind: str) -> list[str]:
    """List the captures of phrases of one kind."""
    named = [name for name, concept in study.concepts.items() if concept.kind == kind]
    return [name for name, capture in study.captures.items() if capture.tokens in named]


def hooks_with_moments(study: Study) -> list[tuple[str, str]]:
    """List the pairs of capture and hook whose moments some stage needs."""
    dictionaries = [(capture, d.hooks) for d in study.dictionaries.values() for capture in (d.capture, d.untrained)]
    wanted = {(capture, hook) for capture, hooks in dictionaries if capture for hook in hooks}
    perturbed = {(member.capture, site) for member in experiments(study).values() for site in member.sites}
    return sorted(wanted | perturbed)


def fits(member: Dictionaries) -> dict[str, dict[str, Any]]:
    """List the fits of a dictionary study: a key that names each, and its settings as the family's `fit` or `train` takes them."""
    found: dict[str, dict[str, Any]] = {}
    if (kmeans := member.kmeans) is not None:
        found |= _kmeans_fits(kmeans)
    if member.pca is not None:
        found |= {f"pca-r{rank}": {"rank": rank} for rank in member.pca.ranks}
    for family, (axis, setting) in SAES.items():
        if (sae := getattr(member, family)) is not None:
            shared = sae.model_dump(exclude={"latents", "seeds", axis}) | {"architecture": family}
            found |= {
                f"{family}-n{n}-{axis[0]}{_digits(value)}-s{s}": {**shared, "n_latents": n, setting: value}
                for n in sae.latents
                for value in getattr(sae, axis)
                for s in sae.seeds
            }
    return found | _null_fits(member) | {f"{GIVEN}-{name}": given.model_dump() for name, given in member.given.items()}


def _null_fits(member: Dictionaries) -> dict[str, dict[str, Any]]:
    """List the dictionaries that nobody fits."""
    found: dict[str, dict[str, Any]] = {"token_identity": {"kind": "token_identity"}} if member.token_identity else {}
    if (points := member.random_points) is not None:
        pairs = itertools.product(points.sizes, points.seeds)
        found |= {f"random_points-k{k}-s{s}": {"kind": "random_points", "n_clusters": k} for k, s in pairs}
    if (drawn := member.random_directions) is not None:
        for n, k, s in itertools.product(drawn.latents, drawn.k, drawn.seeds):
            found[f"random_directions-n{n}-k{k}-s{s}"] = {"n_latents": n, "k": k}
    return found


def fits_to(member: Dictionaries, data: str) -> list[str]:
    """List the fits of a dictionary study to one kind of data, with those that a read-out of centroids takes them from.

    SAEs that were trained elsewhere were so on real data.
    """
    every = [*fits(member)]
    if data == "real":
        return every
    wanted = member.null_families.get(data) or {fit_labels(fit)["family"] for fit in every} - {GIVEN}
    chosen = [fit for fit in every if fit_labels(fit)["family"] in wanted]
    return [fit for fit in every if fit in {*chosen, *map(read_from, chosen)}]


def is_sae(fit: str) -> bool:
    """Say whether a fit is a sparse autoencoder: trained here or elsewhere, or made of random directions."""
    return fit.split("-")[0] in (*SAES, GIVEN, "random_directions")


def fit_files(fit: str) -> list[str]:
    """List the artifacts of a fit, beside the tables about it: first the one that it is read from.

    SAEs are folders in the format of SAELens, all others one file.
    """
    if is_sae(fit):
        return [f"{fit}/{layout.WEIGHTS}", f"{fit}/{layout.CONFIG}"]
    return [f"{fit}.safetensors"]


def spliced(member: Dictionaries) -> list[str]:
    """List the fits that are spliced into the model: all but that which looks at tokens and not at activations."""
    return [fit for fit in fits(member) if fit != "token_identity"]


def kinds_of_data(member: Dictionaries) -> list[str]:
    """List the data that every method is fitted to: the real ones first, then nulls."""
    return ["real", *member.nulls, *(["untrained"] if member.untrained else [])]


def capture_of(member: Dictionaries, data: str) -> str:
    """Name the capture that data, or the data that a surrogate resembles, come from."""
    return member.untrained if data == "untrained" and member.untrained else member.capture


def _kmeans_fits(kmeans: KMeans) -> dict[str, dict[str, Any]]:
    """List the fits of k-means. A read-out has no settings but its family: its centroids are those of `read_from`."""
    shared, found = kmeans.model_dump(include={"tolerance", "max_iterations"}), {}
    for variant, prefix, k, s in itertools.product(kmeans.variants, kmeans.pca_prefix, kmeans.sizes, kmeans.seeds):
        family, before = (f"pca_{CLUSTERS[variant]}", f"-p{prefix}") if prefix else (CLUSTERS[variant], "")
        settings: dict[str, Any] = {"n_clusters": k, **shared}
        settings |= {"pca_prefix": prefix} if prefix else {}
        settings |= {"spherical": True} if variant == "spherical" else {}
        fit = f"{family}{before}-k{k}-s{s}"
        found[fit] = {"family": CLUSTERS[variant]} if variant in ("unit", "nearest") else settings
    return found


def read_from(fit: str) -> str:
    """Name the fit that a read-out takes its centroids from."""
    family, *settings = fit.split("-")
    return "-".join([family.removesuffix("_unit").removesuffix("_nearest"), *settings])


def _digits(value: float) -> str:
    """Write a number in full: two settings never share a name, and no exponent puts a `-` of its own into it."""
    return np.format_float_positional(value, trim="-")


def fit_labels(fit: str) -> dict[str, Any]:
    """Read a fit's key: its family, how many latents are active by design (None where that is an outcome) and its seed."""
    family, *settings = fit.split("-")
    if family == GIVEN:  # the rest is a name
        return {"family": family, "fit": fit, "k": None, "seed": 0}
    values = {setting[0]: float(setting[1:]) for setting in settings}
    by_family = {"pca": values.get("r"), "random_points": 1.0, "token_identity": 1.0}
    active = by_family.get(family, values.get("k"))
    active = 1 + values.get("p", 0.0) if family in CLUSTERINGS else active
    return {"family": family, "fit": fit, "k": active, "seed": int(values.get("s", 0))}


def tables(study: Study) -> list[str]:
    """List the tables that claims, figures and the page read."""
    found = ["activations"] if hooks_with_moments(study) else []
    found += (
        [
            "dictionary_metrics",
            "dictionary_densities",
            "dictionary_preactivations",
            "training_curves",
            "rate_distortion",
        ]
        if study.dictionaries
        else []
    )
    found += ["dictionary_structure"] if any(map(with_nulls, study.dictionaries.values())) else []
    found += ["dictionary_matches"] if any(map(matched, study.dictionaries.values())) else []
    found += ["top_contexts"] if any(map(selective, study.dictionaries.values())) else []
    found += ["toy_truth", "toy_points", "toy_directions"] if study.toy else []
    found += (
        ["probe_scores", "probe_summary", "probe_angles", "probe_facts", "probe_points", "probe_arrows"]
        if study.probes
        else []
    )
    found += ["causal_effects"] if study.causal else []
    found += ["probe_cascades"] if monitored(study) else []
    found += [f"concept_{kind}" for kind in KINDS_OF_CONCEPTS if concept_captures(study, kind)]
    names = ("curves", "thresholds", "statistics", "comparisons")
    found += [f"perturbation_{name}" for name in names] if study.perturbations else []
    found += ["triangles", "subspaces", "optima_statistics"] if study.optima else []
    found += ["planes", "plane_corners", "plane_statistics"] if study.planes else []
    found += ["regions", "region_statistics"] if study.regions else []
    return found + (["spikes", "spike_statistics"] if study.spikes or study.toy_superposition else [])


def figures(study: Study) -> dict[str, str]:
    """List the figures of a study, and the part of it that each belongs to: one of `PARTS`."""
    found = {"toy_truth": "toy"} if study.toy else {}
    found |= dict.fromkeys(("probe_layers", "generalization", "statement_pca"), "probes") if study.probes else {}
    found |= {"probe_angles": "probes"} if any(len(member.fits) > 1 for member in study.probes.values()) else {}
    found |= {"causal_effects": "causal"} if study.causal else {}
    found |= {"cascades": "cascades"} if monitored(study) else {}
    asked = [kind for kind in KINDS_OF_CONCEPTS if concept_captures(study, kind)]
    found |= {f"concept_{kind}": "concepts" for kind in asked}
    found |= dict.fromkeys(_figures_of_dictionaries(study), "dictionaries")
    for name, member in study.perturbations.items():
        found |= {f"curves_{name}": "curves"}
        kinds = ("thresholds", "histograms", *(("layers",) if _over_layers(member) else ()))
        found |= {f"{kind}_{name}": "crossings" for kind in kinds}
    for name, optima in study.optima.items():
        found |= {f"triangles_{name}": "optima"} | ({f"subspaces_{name}": "optima"} if optima.subspaces else {})
    found |= {f"planes_{name}": "planes" for name in study.planes}
    found |= {control: "curves" for control, pair in CONTROLS.items() if _comparable(study, *pair)}
    found |= {"training": "crossings"} if _over_weights(study) else {}
    compared = any(len(m.bases) * len(m.directions) > 1 for m in study.perturbations.values())
    found |= {"comparisons": "crossings"} if compared else {}
    found |= {f"regions_{name}": "regions" for name in study.regions}
    found |= {f"spikes_{name}": "spikes" for name in study.spikes}
    return found | ({"toy_superposition": "spikes"} if study.toy_superposition else {})


def _figures_of_dictionaries(study: Study) -> list[str]:
    members = study.dictionaries.values()
    always = ("unexplained_variance", "description_length", "dictionary_size", "variance_definitions")
    found = [*always] if members else []
    found += ["structure"] if any(map(with_nulls, members)) else []
    found += ["densities"] if any(map(selective, members)) else []
    found += ["pre_activations"] if any(is_sae(fit) for member in members for fit in fits(member)) else []
    found += ["dictionary_matches"] if any(map(matched, members)) else []
    found += ["loss_recovered"] if any(member.splice_sequences for member in members) else []
    trained = any(getattr(member, family) for member in members for family in SAES)
    return found + (["training_curves"] if trained else [])


def _over_layers(member: Perturbation) -> bool:
    """Say whether an experiment has several sites, and two families or more to compare at each."""
    return len(member.sites) > 1 and len(member.bases) * len(member.directions) > 1


def _over_weights(study: Study) -> bool:
    """Say whether three states of the model or more have a base, a direction, a path and a site in common."""
    states = Counter(
        family
        for label, members in _by_weights(study).items()
        for family in {family for m in members for family in itertools.product(m.sites, m.paths, m.bases, m.directions)}
    )
    return max(states.values(), default=0) >= 3


def _by_weights(study: Study) -> dict[str, list[Perturbation]]:
    """List the experiments of each state of the model."""
    found: dict[str, list[Perturbation]] = {}
    for member in study.perturbations.values():
        found.setdefault(weights_of(study.captures[member.capture]), []).append(member)
    return found


def weights_of(capture: Capture) -> str:
    """Name the state of the model that a capture reads: trained, random, or another revision."""
    return capture.revision or capture.weights


def _comparable(study: Study, first: str, second: str) -> bool:
    """Say whether a study has both experiments of a control, with a base, a direction and a path in common."""
    pair = [study.perturbations[name] for name in (first, second) if name in study.perturbations]
    axes = ("bases", "directions", "paths")
    return len(pair) == 2 and all(set(getattr(pair[0], axis)) & set(getattr(pair[1], axis)) for axis in axes)


# --- cfg of each stage -----------------------------------------------------------------------------------------------------------------------


def package(study: Study, package: str) -> dict[str, Any]:
    """Name, version and sha256 of a wheel."""
    sources = [study.model.source, *(study.corpus.sources if study.corpus else [])]
    found = next(s for s in sources if isinstance(s, Package | PackageText) and f"{s.name}-{s.version}" == package)
    return {"name": found.name, "version": found.version, "sha256": found.sha256}


def checks(study: Study) -> dict[str, Any]:
    """All that the model must be able to do, for `hooks.check_study`. No stage's cfg: a study that asks for more reruns nothing it has."""
    hooks = {f"captures.{name}.hooks": capture.hooks for name, capture in study.captures.items()}
    lengths = {f"tokens.{name}.length": value.length for name, value in study.tokens.items()}
    sites = {where: [member.sites, member.read] for where, member in experiments(study).items()}
    return {"gauge": study.model.gauge, "hooks": hooks, "lengths": lengths, "sites": sites}


def model(study: Study) -> dict[str, Any]:
    """Where the model comes from."""
    return _model(study)


def checkpoint(study: Study, revision: str) -> dict[str, Any]:
    """Where another revision of the model comes from."""
    return _model(study, revision=revision)


def selfcheck(study: Study) -> dict[str, Any]:
    """The model as it is used; every hook point is checked."""
    return {"model": _model(study), "seed": seed_for(study.seed, "selfcheck")}


def tokens(study: Study, tokens: str) -> dict[str, Any]:
    """Text, tokenizer and shape of a token set."""
    settings = study.tokens[tokens].model_dump()
    assert study.corpus is not None  # `tokens` without `corpus` is refused when the config is read
    return {
        "source": study.model.source.model_dump(),
        "trust_remote_code": study.model.trust_remote_code,
        "corpus": study.corpus.model_dump(),
        "tokens": settings,
        "seed": seed_for(study.seed, "split"),
    }


def statements(study: Study, statements: str) -> dict[str, Any]:
    """Sets of statements and the tokenizer."""
    found = study.statements[statements]
    settings = found.model_dump(exclude={"geometry_of_truth", "truth_is_universal"})
    settings["files"] = {name: local_copy(place) for name, place in found.places.items()}
    source, trust = study.model.source.model_dump(), study.model.trust_remote_code
    return {
        "source": source,
        "trust_remote_code": trust,
        "statements": settings,
        "seed": seed_for(study.seed, "statements", statements),
    }


def phrases(study: Study, concept: str) -> dict[str, Any]:
    """Templates, words and the tokenizer; nothing is drawn."""
    return {
        "source": study.model.source.model_dump(),
        "trust_remote_code": study.model.trust_remote_code,
        "concept": study.concepts[concept].model_dump(exclude={"folds"}),
    }


def concepts(study: Study, capture: str) -> dict[str, Any]:
    """One capture of phrases: what kind they are of, and how they are held out."""
    found = study.captures[capture]
    return {
        **study.concepts[found.tokens].model_dump(include={"kind", "folds"}),
        "hooks": found.hooks,
        "labels": {"concept": found.tokens, "capture": capture, "weights": weights_of(found)},
        "seed": seed_for(study.seed, "concepts", found.tokens),
    }


def activations(study: Study, capture: str) -> dict[str, Any]:
    """Everything that decides the bits of a capture; what is read of it later does not."""
    found = study.captures[capture]
    return {
        "model": _model_of(study, found),
        "batch_tokens": study.compute.batch_tokens,
        "capture": found.model_dump(include={"hooks", "positions", "storage"}),
    }


def moments(study: Study, capture: str, hook: str) -> dict[str, Any]:
    """Rows to use."""
    return {
        "select": study.captures[capture].select.model_dump(),
        "seed": seed_for(study.seed, "moments", capture, hook),
    }


def activation_table(study: Study) -> dict[str, Any]:
    """Which hook points the table lists."""
    return {"places": [{"capture": capture, "hook": hook} for capture, hook in hooks_with_moments(study)]}


def rate_distortion(study: Study) -> dict[str, Any]:
    """Which hook points the table lists: those with dictionaries."""
    places = sorted({(member.capture, hook) for member in study.dictionaries.values() for hook in member.hooks})
    return {"places": [{"capture": capture, "hook": hook} for capture, hook in places]}


def surrogate(study: Study, null: str, capture: str, hook: str, split: str) -> dict[str, Any]:
    """Which null, of which rows."""
    return {
        "null": null,
        "select": study.captures[capture].select.model_dump(),
        "seed": seed_for(study.seed, "surrogate", null, capture, hook, split),
    }


def fit(study: Study, dictionaries: str, hook: str, data: str, fit: str) -> dict[str, Any]:
    """Settings of one fit and the rows it uses. The seed depends on the fit alone, so real data and nulls start alike."""
    member = study.dictionaries[dictionaries]
    return {
        "fit": fits(member)[fit],
        "first_position": _first_position(study, member, data),
        "seed": seed_for(study.seed, "fit", dictionaries, hook, fit),
    }


def given(study: Study, dictionaries: str, hook: str, fit: str) -> dict[str, Any]:
    """Where an SAE comes from that was trained elsewhere, and the hook point at which it is used."""
    chosen = study.dictionaries[dictionaries].given[fit.removeprefix(f"{GIVEN}-")]
    return {"given": chosen.model_dump() | {"folder": chosen.folder.replace("{hook}", hook)}, "hook": hook}


def given_folders(study: Study, results: Path) -> list[tuple[str, str, str]]:
    """List the local folders of SAEs: place in the config, folder, and the hook point at which it is used.

    A folder that is gone is left out where its SAE has been read: an unpacked archive has the results without it.
    """
    found = []
    for name, member in study.dictionaries.items():
        for (sae, chosen), hook in itertools.product(member.given.items(), member.hooks):
            folder = chosen.folder.replace("{hook}", hook)
            read = results / "dictionaries" / name / hook / "real" / f"{GIVEN}-{sae}" / f"{layout.CONFIG}.json"
            if chosen.repo is None and (Path(folder).is_dir() or not read.is_file()):
                found.append((f"dictionaries.{name}.given.{sae}.folder", folder, hook))
    return found


def dictionary_metrics(study: Study, dictionaries: str, hook: str, data: str, fit: str) -> dict[str, Any]:
    """Who the fit is, in the columns of its table, and the rows it is measured on."""
    member = study.dictionaries[dictionaries]
    labels = {"capture": member.capture, "hook": hook, "data": data, **fit_labels(fit)}
    return {
        "labels": labels,
        "gauge": study.model.gauge,
        "first_position": _first_position(study, member, data),
        "seed": seed_for(study.seed, "bootstrap", dictionaries, hook, data, fit),
        "documents_seed": _documents_seed(study, member, data),
    }


def _documents_seed(study: Study, member: Dictionaries, data: str) -> int:
    """Seed of the resampled documents: one for all fits to activations of the same text, so that differences are paired.

    Random weights see the text too. Of a surrogate, whose rows are drawn whatever the text, the documents are a mere
    grouping of independent rows: they are resampled on their own.
    """
    text = "text" if data in ("real", "untrained") else data
    return seed_for(study.seed, "documents", study.captures[member.capture].tokens, text)


def with_nulls(member: Dictionaries) -> bool:
    """Say whether a dictionary study has a fit to real activations and to a null of them."""
    return any(fits_to(member, data) for data in kinds_of_data(member)[1:])


def matched(member: Dictionaries, data: str = "real") -> bool:
    """Say whether a dictionary study has two fits to some data that differ in one respect."""
    return bool(pairs(fits_to(member, data)))


def selective(member: Dictionaries) -> bool:
    """Say whether a dictionary study has a fit whose latents are not all active always, as those of PCA are."""
    return any(fit_labels(fit)["family"] != "pca" for fit in fits(member))


def top_contexts(study: Study, dictionaries: str, hook: str) -> dict[str, Any]:
    """The tokenizer, and the rows among which contexts are looked for."""
    member = study.dictionaries[dictionaries]
    model = _model_of(study, study.captures[member.capture])
    return {
        "source": model["source"],
        "trust_remote_code": model["trust_remote_code"],
        "labels": {"capture": member.capture, "hook": hook},
        "first_position": _first_position(study, member, "real"),
        "seed": seed_for(study.seed, "top contexts", dictionaries, hook),
    }


def matches(study: Study, dictionaries: str, hook: str, data: str) -> dict[str, Any]:
    """Which fits these are; what is compared follows from their names."""
    labels = {"capture": study.dictionaries[dictionaries].capture, "hook": hook, "data": data}
    return {"labels": labels, "seed": seed_for(study.seed, "matches", dictionaries, hook, data)}


def splice(study: Study, dictionaries: str, hook: str) -> dict[str, Any]:
    """Held-out sequences and the model to run with reconstructions in it."""
    member = study.dictionaries[dictionaries]
    capture = study.captures[member.capture]
    return {
        "model": _model_of(study, capture),
        "hook": hook,
        "sequences": member.splice_sequences,
        "first_position": capture.select.first_position,
        "labels": {
            name: dictionary_metrics(study, dictionaries, hook, "real", name)["labels"] for name in spliced(member)
        },
        "seed": seed_for(study.seed, "splice", dictionaries, hook),
    }


def probes(study: Study, probes: str) -> dict[str, Any]:
    """Probes by name, splits and penalty."""
    return {
        **study.probes[probes].model_dump(exclude={"capture", "C_path", "centring", "monitoring"}),
        "probes": study.probes[probes].fits,
        "hooks": study.captures[study.probes[probes].capture].hooks,
        "seed": seed_for(study.seed, "probes", probes),
    }


def causal_prompts(study: Study, causal: str) -> dict[str, Any]:
    """Which statements are asked about, how, and the tokenizer."""
    member, seeds = study.causal[causal], _causal_seeds(study, causal)
    name = study.captures[study.probes[member.probes].capture].tokens
    statements = study.statements[name]
    asked = ("statements", "template", "answer_true", "answer_false", "shots", "positions")
    return {
        **member.model_dump(include=set(asked)),
        **seeds,
        "sets": member.sets or statements.names,
        "bos": statements.bos,
        "source": study.model.source.model_dump(),
        "trust_remote_code": study.model.trust_remote_code,
    }


def causal(study: Study, causal: str) -> dict[str, Any]:
    """Which directions are added, where and how far, and the model."""
    member = study.causal[causal]
    probes = study.probes[member.probes]
    added = ("hooks", "together", "positions", "train_set", "scaling", "strength", "random_directions")
    return {
        **member.model_dump(include=set(added)),
        **_causal_seeds(study, causal),
        "experiment": causal,
        "fits": member.fits or probes.fits,
        "position": probes.position,
        "model": _model_of(study, study.captures[probes.capture]),
        "rows_per_launch": study.compute.rows_per_launch,
    }


def _causal_seeds(study: Study, causal: str) -> dict[str, Any]:
    """Place in the config, seed, and what tells the statements that the tested probes were not fitted on."""
    name = study.causal[causal].probes
    return {
        "where": f"causal.{causal}",
        "seed": seed_for(study.seed, "causal", causal),
        "probe_seed": seed_for(study.seed, "probes", name),
        "test_fraction": study.probes[name].test_fraction,
    }


def cascades(study: Study, probes: str) -> dict[str, Any]:
    """Pairs of probes, and the splits that they were fitted in."""
    member = study.probes[probes]
    assert member.monitoring is not None
    return {
        **member.model_dump(include={"splits", "test_fraction", "monitoring", "position"}),
        "hooks": study.captures[member.capture].hooks,
        "read": monitored_hooks(study, probes),
        "label": probes,
        "seed": seed_for(study.seed, "probes", probes),
    }


def monitored_hooks(study: Study, probes: str) -> list[str]:
    """List the hooks that the stages of a probe study's cascades read, in the order of the capture."""
    member = study.probes[probes]
    assert member.monitoring is not None
    named = {stage.hook for stage in (*member.monitoring.first, *member.monitoring.second)}
    return [hook for hook in study.captures[member.capture].hooks if hook in named]


def monitored(study: Study) -> list[str]:
    """List the probe studies that have cascades."""
    return [name for name, member in study.probes.items() if member.monitoring is not None]


def toy(study: Study) -> dict[str, Any]:
    """The toy's settings."""
    assert study.toy is not None
    return {"toy": study.toy.model_dump(), "seed": seed_for(study.seed, "toy")}


def perturbation(study: Study, experiment: str, hook: str) -> dict[str, Any]:
    """One sweep at one site. Fits that it does not use are left out, so that it stays as it was before there were any."""
    member = study.perturbations[experiment]
    unused = {source for source in families.SOURCES if getattr(member, source) is None}
    return at_site(study, member, experiment, hook) | member.model_dump(exclude=set(Experiment.model_fields) | unused)


def fits_used(study: Study, experiment: str, hook: str) -> dict[str, list[str]]:
    """List the files that bases and directions of a sweep are made from, by the key that names each, below the study's folder."""
    member = study.perturbations[experiment]
    found: dict[str, list[str]] = {}
    for key, chosen in ((families.DICTIONARY, member.dictionary), (families.CLUSTERS, member.clusters)):
        if chosen is not None:
            found[key] = _place_of(chosen, hook)
    if member.probe is not None:
        found[families.PROBE] = [f"probes/{member.probe}/directions.safetensors"]
    return found


def optima(study: Study, optima: str, hook: str) -> dict[str, Any]:
    """One search for sensitivity optima at one site."""
    member = study.optima[optima]
    own = member.model_dump(exclude=set(Experiment.model_fields))
    if member.subspaces:
        own["subspaces"]["n_prompts"] = own["subspaces"].pop("prompts")
    return at_site(study, member, optima, hook) | own


def planes(study: Study, planes: str, hook: str) -> dict[str, Any]:
    """Planes through activations at one site."""
    member = study.planes[planes]
    return at_site(study, member, planes, hook) | member.model_dump(exclude=set(Experiment.model_fields))


def at_site(study: Study, member: Experiment, experiment: str, hook: str) -> dict[str, Any]:
    """What all experiments that perturb need: labels, place, prompts and model.

    The seed is one for all of them, so that they are paired wherever they can be: same prompts, same draws.
    """
    capture = study.captures[member.capture]
    return {
        "experiment": experiment,
        "site": hook,
        "weights": weights_of(capture),
        **member.model_dump(include={"read", "position"}),
        "n_prompts": member.prompts,
        "model": _model_of(study, capture),
        "rows_per_launch": study.compute.rows_per_launch,
        "seed": seed_for(study.seed, "perturbations"),
    }


def regions(study: Study, regions: str, hook: str) -> dict[str, Any]:
    """Walks between prompts at one site. Which dictionary has the cells is told by the input."""
    member = study.regions[regions]
    own = set(Experiment.model_fields) | {"cells"}
    return at_site(study, member, regions, hook) | member.model_dump(exclude=own)


def cells(study: Study, regions: str, hook: str) -> list[str]:
    """List the files of the fit whose cells are looked up at a site, below the study's folder; none where there is none."""
    chosen = study.regions[regions].cells
    if chosen is None or hook not in study.dictionaries[chosen.study].hooks:
        return []
    return _place_of(chosen, hook)


def _place_of(chosen: Fit, hook: str) -> list[str]:
    return [f"dictionaries/{chosen.study}/{hook}/real/{file}" for file in fit_files(chosen.fit)]


def spikes(study: Study, spikes: str) -> dict[str, Any]:
    """Pairs to draw, and the rows to draw them from; the fits are inputs."""
    member = study.spikes[spikes]
    return {
        **member.model_dump(include={"pairs", "steps"}),
        "labels": {"experiment": spikes, "dictionaries": member.dictionaries, "hook": member.hook},
        "first_position": _first_position(study, study.dictionaries[member.dictionaries], "real"),
        "seed": seed_for(study.seed, "spikes", spikes),
    }


def toy_superposition(study: Study) -> dict[str, Any]:
    """The toy's settings."""
    assert study.toy_superposition is not None
    return {"toy": study.toy_superposition.model_dump(), "seed": seed_for(study.seed, "toy superposition")}


def no_settings(study: Study) -> dict[str, Any]:
    """For stages that only put together what others made."""
    return {}


def convert_model(study: Study) -> dict[str, Any]:
    """Where the GGUF comes from."""
    return {"source": study.model.source.model_dump()}


def statistics(study: Study) -> dict[str, Any]:
    """Only a seed, for the bootstrap."""
    return {"seed": seed_for(study.seed, "statistics")}


def report(study: Study) -> dict[str, Any]:
    """The whole study: the page shows it."""
    return study.model_dump(exclude={"compute": {"device", "threads"}, "archive": True})


def archive(study: Study) -> dict[str, Any]:
    """The whole study, which goes into the archive, and what else does."""
    return report(study) | {"archive": study.archive.model_dump()}


def _model(study: Study, weights: str = "trained", revision: str | None = None) -> dict[str, Any]:
    settings = study.model.model_dump()
    if revision:
        settings["source"] |= {"revision": revision}
    if weights == "random":
        settings["random_weights_seed"] = seed_for(study.seed, "random weights")
    return settings


def _model_of(study: Study, capture: Capture) -> dict[str, Any]:
    """The state of the model that a capture reads."""
    return _model(study, capture.weights, capture.revision)


def _first_position(study: Study, member: Dictionaries, data: str) -> int:
    """A surrogate has just the rows that were selected."""
    captured = data in ("real", "untrained")
    return study.captures[capture_of(member, data)].select.first_position if captured else 0


# --- where things lie ------------------------------------------------------------------------------------------------------------------------


def converted_model(study: Study) -> str | None:
    """Folder of the converted copy of a GGUF model, None for models that are read where they are."""
    source = study.model.source
    if not isinstance(source, Gguf | Package):
        return None
    stem = Path(source.member if isinstance(source, Package) else source.path).stem
    return f"resources/models/{stem}-{source.sha256[:12]}"


def user_files(study: Study) -> dict[str, list[str]]:
    """Local files that the config names, by stage; an address is not a file before it is fetched."""
    corpus = [source.path for source in (study.corpus.sources if study.corpus else []) if source.kind == "file"]
    statements = [local_copy(place) for value in study.statements.values() for place in value.places.values()]
    return {"tokens": corpus, "statements": statements}


def local_copy(place: str) -> str:
    """Return where a file of statements lies: a path is itself, an address has a copy named by its hash."""
    if not place.startswith("https://"):
        return place
    name = Path(place.partition("#")[0]).name
    return f"resources/statements/{hashlib.sha256(place.encode()).hexdigest()[:12]}-{name}"


def statement_file(study: Study, name: str) -> dict[str, Any]:
    """The address that a local copy comes from, with the sha256 that it must have if that is known."""
    places = [place for value in study.statements.values() for place in value.places.values()]
    return {"address": next(place for place in places if Path(local_copy(place)).name == name)}
