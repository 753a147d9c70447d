"""What a study leaves behind: which tables and figures it has, and what the page and the archive are made from."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from actspace.config.perturbations import Perturbation
from actspace.config.study import Study
from actspace.stages.base import weights_of
from actspace.stages.captures import hooks_with_moments
from actspace.stages.fit_names import SAES, fits, is_sae, matched, selective, with_nulls
from actspace.stages.probing import KINDS_OF_CONCEPTS, concept_captures, monitored

CONTROLS = {
    "late_layer_control": ("sensitive_directions", "late_layer"),
    "random_weights_control": ("plateaus", "plateaus_random_weights"),
}
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


def _comparable(study: Study, first: str, second: str) -> bool:
    """Say whether a study has both experiments of a control, with a base, a direction and a path in common."""
    pair = [study.perturbations[name] for name in (first, second) if name in study.perturbations]
    axes = ("bases", "directions", "paths")
    return len(pair) == 2 and all(set(getattr(pair[0], axis)) & set(getattr(pair[1], axis)) for axis in axes)


def report(study: Study) -> dict[str, Any]:
    """The whole study: the page shows it."""
    return study.model_dump(exclude={"compute": {"device", "threads"}, "archive": True})


def archive(study: Study) -> dict[str, Any]:
    """The whole study, which goes into the archive, and what else does."""
    return report(study) | {"archive": study.archive.model_dump()}
