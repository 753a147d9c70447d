"""The registry of figures: what the report can show, and what each figure needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from actspace.perturbations.superposition import EXPERIMENT
from actspace.report import figures_cascades as cascades
from actspace.report import figures_causal as causal
from actspace.report import figures_concepts as concepts
from actspace.report import figures_crossings as crossings
from actspace.report import figures_dictionaries as dictionaries
from actspace.report import figures_latents as latents
from actspace.report import figures_optima as optima
from actspace.report import figures_perturbations as perturbations
from actspace.report import figures_preactivations as preactivations
from actspace.report import figures_probes as probes
from actspace.report import figures_regions as regions
from actspace.report import figures_structure
from actspace.report.spec import FigureSpec, Tables

CURVES, THRESHOLDS, STATISTICS, COMPARISONS = (
    f"perturbation_{name}" for name in ("curves", "thresholds", "statistics", "comparisons")
)
SPIKES = FigureSpec(
    id="spikes",
    draw=regions.spikes,
    tables=("spikes", "spike_statistics"),
    section=regions.SECTION,
    title="Between activations",
    caption=regions.spikes_caption,
)
KINDS: dict[str, tuple[FigureSpec, ...]] = {
    CURVES: (
        FigureSpec(
            id="curves",
            draw=perturbations.curves,
            tables=(CURVES,),
            section=perturbations.SECTION,
            title="Curves",
            caption=perturbations.curves_caption,
        ),
        FigureSpec(
            id="thresholds",
            draw=crossings.thresholds,
            tables=(THRESHOLDS, STATISTICS),
            section=perturbations.SECTION,
            title="Threshold crossings",
            caption=crossings.thresholds_caption,
        ),
        FigureSpec(
            id="histograms",
            draw=crossings.histograms,
            tables=(THRESHOLDS,),
            section=perturbations.SECTION,
            title="Histograms of crossings",
            caption=crossings.histograms_caption,
        ),
        FigureSpec(
            id="layers",
            draw=crossings.layer_profile,
            tables=(COMPARISONS, STATISTICS, THRESHOLDS),
            section=perturbations.SECTION,
            title="Crossings over layers",
            caption=crossings.layer_profile_caption,
            has_rows=crossings.has_several_sites,
        ),
    ),
    "triangles": (
        FigureSpec(
            id="triangles",
            draw=optima.triangles,
            tables=("triangles", "optima_statistics"),
            section=perturbations.SECTION,
            title="Threshold angles between three directions",
            caption=optima.triangles_caption,
        ),
        FigureSpec(
            id="subspaces",
            draw=optima.subspaces,
            tables=("optima_statistics",),
            section=perturbations.SECTION,
            title="A step downhill in random subspaces",
            caption=optima.subspaces_caption,
            has_rows=optima.has_subspaces,
        ),
    ),
    "planes": (
        FigureSpec(
            id="planes",
            draw=optima.planes,
            tables=("planes", "plane_corners", "plane_statistics"),
            section=perturbations.SECTION,
            title="Planes through three activations",
            caption=optima.planes_caption,
        ),
    ),
    "regions": (
        FigureSpec(
            id="regions",
            draw=regions.regions,
            tables=("regions", "region_statistics"),
            section=regions.SECTION,
            title="Regions between activations",
            caption=regions.regions_caption,
        ),
    ),
    "spikes": (SPIKES,),
}
"""Figures of which every experiment has one, by the table that tells which experiments there are."""

CONTROLS = {
    "late_layer_control": ("sensitive_directions", "late_layer", "Control: perturbing a late layer"),
    "random_weights_control": ("plateaus", "plateaus_random_weights", "Control: random weights"),
}


def _controls() -> list[FigureSpec]:
    return [
        FigureSpec(
            id=figure_id,
            draw=partial(perturbations.control, experiment=experiment, contrast=contrast),
            tables=(CURVES,),
            section=perturbations.SECTION,
            title=title,
            caption=partial(perturbations.control_caption, experiment=experiment, contrast=contrast),
            has_rows=partial(perturbations.has_control, experiment=experiment, contrast=contrast),
        )
        for figure_id, (experiment, contrast, title) in CONTROLS.items()
    ]


_SPECS = [
    FigureSpec(
        id="toy_truth",
        draw=probes.toy_truth,
        tables=("toy_points", "toy_directions", "toy_truth"),
        section=probes.SECTION,
        title="Logistic regression finds a tilted direction",
        caption=probes.toy_caption,
    ),
    FigureSpec(
        id="probe_layers",
        draw=probes.layer_profile,
        tables=("probe_summary",),
        section=probes.SECTION,
        title="Truth probes over layers",
        caption=probes.layer_caption,
        has_rows=probes.has_accuracy,
    ),
    FigureSpec(
        id="generalization",
        draw=probes.generalization,
        tables=("probe_summary",),
        section=probes.SECTION,
        title="Truth probes from set to set",
        caption=probes.generalization_caption,
        has_rows=probes.has_accuracy,
    ),
    FigureSpec(
        id="statement_pca",
        draw=probes.statement_pca,
        tables=("probe_points", "probe_arrows"),
        section=probes.SECTION,
        title="Statements in their planes of most variance",
        caption=probes.pca_caption,
    ),
    FigureSpec(
        id="probe_angles",
        draw=probes.probe_angles,
        tables=("probe_angles",),
        section=probes.SECTION,
        title="Angles between probes",
        caption=probes.angles_caption,
    ),
    FigureSpec(
        id="causal_effects",
        draw=causal.causal_effects,
        tables=("causal_effects",),
        section=probes.SECTION,
        title="What adding probe directions does to answers",
        caption=causal.causal_caption,
    ),
    FigureSpec(
        id="cascades",
        draw=cascades.cascades,
        tables=("probe_cascades",),
        section=probes.SECTION,
        title="Two probes as a cascade",
        caption=cascades.cascades_caption,
    ),
    FigureSpec(
        id="concept_unions",
        draw=concepts.unions,
        tables=("concept_unions",),
        section=concepts.SECTION,
        title="Are unions of concepts sums?",
        caption=concepts.unions_caption,
    ),
    FigureSpec(
        id="concept_intensity",
        draw=concepts.intensity,
        tables=("concept_intensity",),
        section=concepts.SECTION,
        title="Is intensity length?",
        caption=concepts.intensity_caption,
    ),
    FigureSpec(
        id="unexplained_variance",
        draw=dictionaries.unexplained_variance,
        tables=("dictionary_metrics",),
        section=dictionaries.SECTION,
        title="Unexplained variance against active latents",
        caption=dictionaries.unexplained_variance_caption,
    ),
    FigureSpec(
        id="description_length",
        draw=latents.bits,
        tables=("dictionary_metrics",),
        section=dictionaries.SECTION,
        title="Unexplained variance against description length",
        caption=latents.bits_caption,
        has_rows=latents.has_bits,
    ),
    FigureSpec(
        id="structure",
        draw=figures_structure.structure,
        tables=("dictionary_structure",),
        section=dictionaries.SECTION,
        title="Structure beyond covariance",
        caption=figures_structure.structure_caption,
        has_rows=figures_structure.has_structure,
    ),
    FigureSpec(
        id="dictionary_size",
        draw=latents.sizes,
        tables=("dictionary_metrics",),
        section=dictionaries.SECTION,
        title="Unexplained variance against the size of the dictionary",
        caption=latents.sizes_caption,
    ),
    FigureSpec(
        id="variance_definitions",
        draw=dictionaries.variance_definitions,
        tables=("dictionary_metrics",),
        section=dictionaries.SECTION,
        title="Five definitions of unexplained variance",
        caption=dictionaries.variance_definitions_caption,
        has_rows=dictionaries.has_all_definitions,
    ),
    FigureSpec(
        id="loss_recovered",
        draw=dictionaries.loss_recovered,
        tables=("dictionary_metrics",),
        section=dictionaries.SECTION,
        title="Loss recovered by spliced reconstructions",
        caption=dictionaries.loss_recovered_caption,
        has_rows=dictionaries.has_recovered,
    ),
    FigureSpec(
        id="densities",
        draw=latents.densities,
        tables=("dictionary_densities",),
        section=dictionaries.SECTION,
        title="How often latents fire",
        caption=latents.densities_caption,
        has_rows=latents.has_densities,
    ),
    FigureSpec(
        id="pre_activations",
        draw=preactivations.pre_activations,
        tables=("dictionary_preactivations", "dictionary_metrics"),
        section=dictionaries.SECTION,
        title="Pre-activations of real and random vectors",
        caption=preactivations.pre_activations_caption,
        has_rows=preactivations.has_pre_activations,
    ),
    FigureSpec(
        id="dictionary_matches",
        draw=latents.matches,
        tables=("dictionary_matches",),
        section=dictionaries.SECTION,
        title="Do fits find the same directions?",
        caption=latents.matches_caption,
    ),
    FigureSpec(
        id="training_curves",
        draw=dictionaries.training_curves,
        tables=("training_curves",),
        section=dictionaries.SECTION,
        title="Training of the sparse autoencoders",
        caption=dictionaries.training_curves_caption,
    ),
    FigureSpec(
        id="training",
        draw=crossings.training,
        tables=(STATISTICS, THRESHOLDS),
        section=perturbations.SECTION,
        title="Median crossings over states of the model",
        caption=crossings.training_caption,
        has_rows=crossings.has_training,
    ),
    FigureSpec(
        id="comparisons",
        draw=crossings.comparisons,
        tables=(COMPARISONS,),
        section=perturbations.SECTION,
        title="All comparisons of families",
        caption=crossings.comparisons_caption,
        has_rows=crossings.has_auroc,
    ),
    *_controls(),
    replace(
        SPIKES.of(EXPERIMENT),
        id=EXPERIMENT,
        title="Between sparse sums of known features",
        caption=regions.toy_caption,
    ),
]
FIGURES: dict[str, FigureSpec] = {spec.id: spec for spec in _SPECS}
SECTIONS = tuple(dict.fromkeys(spec.section for spec in _SPECS))


def figure_specs(experiments: Mapping[str, Iterable[str]]) -> dict[str, FigureSpec]:
    """Return all figures of a study with these experiments, by the table that holds them, in the order of the report."""
    own = [
        kind.of(name)
        for table, kinds in KINDS.items()
        for name in experiments.get(table, ())
        if name != EXPERIMENT  # the toy has a figure of its own
        for kind in kinds
    ]
    ordered = sorted([*own, *FIGURES.values()], key=lambda spec: SECTIONS.index(spec.section))
    return {spec.id: spec for spec in ordered}


def available_figures(tables: Tables) -> dict[str, FigureSpec]:
    """Return the figures that the tables of a study can fill, in the order of the report."""
    experiments = {
        name: tables[name]["experiment"].astype(str).unique() for name in KINDS if name in tables and len(tables[name])
    }
    return {i: spec for i, spec in figure_specs(experiments).items() if spec.available(tables)}
