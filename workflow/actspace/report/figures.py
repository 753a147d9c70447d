"""The registry of figures: what the report can show, and what each figure needs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from actspace.perturbations.superposition import EXPERIMENT
from actspace.report import figures_crossings as crossings
from actspace.report import figures_dictionaries as dictionaries
from actspace.report import figures_latents as latents
from actspace.report import figures_optima
from actspace.report import figures_perturbations as perturbations
from actspace.report import figures_probes as probes
from actspace.report import figures_regions as regions
from actspace.report.spec import FigureSpec, Tables

CONTROLS = {
    "late_layer_control": ("sensitive_directions", "late_layer", "Control: perturbing a late layer"),
    "random_weights_control": ("plateaus", "plateaus_random_weights", "Control: random weights"),
}


def _controls() -> list[FigureSpec]:
    return [
        FigureSpec(
            id=figure_id,
            draw=partial(perturbations.control, experiment=experiment, contrast=contrast),
            tables=("perturbation_curves",),
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
        id="probe_angles",
        draw=probes.probe_angles,
        tables=("probe_angles",),
        section=probes.SECTION,
        title="Angles between probes",
        caption=probes.angles_caption,
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
        tables=("perturbation_statistics", "perturbation_thresholds"),
        section=perturbations.SECTION,
        title="Median crossings over states of the model",
        caption=crossings.training_caption,
        has_rows=crossings.has_training,
    ),
    FigureSpec(
        id="comparisons",
        draw=crossings.comparisons,
        tables=("perturbation_comparisons",),
        section=perturbations.SECTION,
        title="All comparisons of families",
        caption=crossings.comparisons_caption,
        has_rows=crossings.has_auroc,
    ),
    *_controls(),
]
FIGURES: dict[str, FigureSpec] = {spec.id: spec for spec in _SPECS}


CURVES, THRESHOLDS, STATISTICS, COMPARISONS = (
    f"perturbation_{name}" for name in ("curves", "thresholds", "statistics", "comparisons")
)
_OF_EXPERIMENTS = (
    ("curves", perturbations.curves, perturbations.curves_caption, (CURVES,), "Curves"),
    ("thresholds", crossings.thresholds, crossings.thresholds_caption, (THRESHOLDS, STATISTICS), "Threshold crossings"),
    ("histograms", crossings.histograms, crossings.histograms_caption, (THRESHOLDS,), "Histograms of crossings"),
    (
        "layers",
        crossings.layer_profile,
        crossings.layer_profile_caption,
        (COMPARISONS, STATISTICS, THRESHOLDS),
        "Crossings over layers",
    ),
)


def experiment_figures(experiment: str) -> dict[str, FigureSpec]:
    """Return the figures of one sweep, `curves_<experiment>`, `thresholds_`, `histograms_` and `layers_` (of several sites)."""
    name = experiment.replace("_", " ")
    specs = [
        FigureSpec(
            id=f"{kind}_{experiment}",
            draw=partial(draw, experiment=experiment),
            tables=tables,
            section=perturbations.SECTION,
            title=f"{title}: {name}",
            caption=partial(caption, experiment=experiment),
            has_rows=partial(crossings.has_several_sites, experiment=experiment)
            if kind == "layers"
            else partial(perturbations.has_experiment, table=tables[0], experiment=experiment),
        )
        for kind, draw, caption, tables, title in _OF_EXPERIMENTS
    ]
    return {spec.id: spec for spec in specs}


def region_figure(experiment: str) -> FigureSpec:
    """Return the figure of one study of regions: `regions_<experiment>`."""
    return FigureSpec(
        id=f"regions_{experiment}",
        draw=partial(regions.regions, experiment=experiment),
        tables=("regions", "region_statistics"),
        section=regions.SECTION,
        title=f"Regions between activations: {experiment.replace('_', ' ')}",
        caption=partial(regions.regions_caption, experiment=experiment),
        has_rows=partial(regions.has_study, table="regions", experiment=experiment),
    )


def spike_figure(experiment: str) -> FigureSpec:
    """Return the figure of one study of spikes: `spikes_<experiment>`; of the toy: `toy_superposition`."""
    toy = experiment == EXPERIMENT
    return FigureSpec(
        id=experiment if toy else f"spikes_{experiment}",
        draw=partial(regions.spikes, experiment=experiment),
        tables=("spikes", "spike_statistics"),
        section=regions.SECTION,
        title="Between sparse sums of known features"
        if toy
        else f"Between activations: {experiment.replace('_', ' ')}",
        caption=partial(regions.toy_caption if toy else regions.spikes_caption, experiment=experiment),
        has_rows=partial(regions.has_study, table="spikes", experiment=experiment),
    )


def figure_specs(
    experiments: Iterable[str],
    optima: Iterable[str] = (),
    planes: Iterable[str] = (),
    region_studies: Iterable[str] = (),
    spike_studies: Iterable[str] = (),
) -> dict[str, FigureSpec]:
    """Return all figures of a study with these experiments of each kind, in the order of the report."""
    own = {i: spec for name in experiments for i, spec in experiment_figures(name).items()}
    own |= {i: spec for name in optima for i, spec in figures_optima.optima_figures(name).items()}
    own |= {i: spec for name in planes for i, spec in figures_optima.plane_figures(name).items()}
    general = {i: spec for i, spec in FIGURES.items() if spec.section != perturbations.SECTION}
    between = [*map(region_figure, region_studies), *map(spike_figure, spike_studies)]
    last = {i: spec for i, spec in FIGURES.items() if i not in general}
    return {**general, **own, **last, **{spec.id: spec for spec in between}}


def available_figures(tables: Tables) -> dict[str, FigureSpec]:
    """Return the figures that the tables of a study can fill, in the order of the report."""
    names = [_experiments(tables, name) for name in ("perturbation_curves", "triangles", "planes", "regions", "spikes")]
    return {i: spec for i, spec in figure_specs(*names).items() if spec.available(tables)}


def _experiments(tables: Tables, name: str) -> list[str]:
    """List the experiments in a table, if there is one."""
    table = tables.get(name)
    return [] if table is None or table.empty else [str(experiment) for experiment in table["experiment"].unique()]
