"""Claims about regions of activation space, and about the space between activations."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from actspace.claims.entry import SIGN_ALONE, NotTestedError, Tables, claims_of, estimate_of, rows_of
from actspace.claims.intervals import Above, Estimate, difference, everywhere
from actspace.claims.sources import DEPTH, PLATEAU_IDEAS, REGIONS, SPIKY
from actspace.hooks import layer_of

BETWEEN, UNTRAINED, SPIKES = "between_prompts", "between_prompts_random_weights", "activations"


def by_site(tables: Tables, experiment: str, statistic: str) -> dict[str, Estimate]:
    """Read a statistic of a study of regions at every site, the earliest first."""
    rows = rows_of(tables, "region_statistics", experiment=experiment, statistic=statistic)
    found = {}
    for _, row in rows.iterrows():
        detail = f"{int(row['n_pairs'])} paths of {int(row['n_prompts'])} prompts"
        found[str(row["site"])] = replace(estimate_of(row), detail=detail)
    # The final norm is no site, so the number of layers does not matter.
    return dict(sorted(found.items(), key=lambda entry: layer_of(entry[0], 0)))


def at_earliest_site(tables: Tables, statistic: str) -> Estimate:
    """Read a statistic where most layers follow."""
    site, found = next(iter(by_site(tables, BETWEEN, statistic).items()))
    return replace(found, detail=f"{site}; {found.detail}")


def at_sites_with_cells(tables: Tables) -> Estimate:
    """Read the excess at changes of cell wherever the clusters were fitted."""
    return everywhere(by_site(tables, BETWEEN, "excess_at_cell_changes"))


def trained_minus_untrained(tables: Tables) -> Estimate:
    """Steepest slope with trained minus that with random weights, at every site that both were run at."""
    weights = set(rows_of(tables, "region_statistics", experiment=UNTRAINED)["weights"])
    if weights != {"random"}:
        raise NotTestedError(f"regions of {UNTRAINED} were not studied with random weights alone")
    trained, untrained = (by_site(tables, name, "max_slope") for name in (BETWEEN, UNTRAINED))
    shared = [site for site in trained if site in untrained]
    if not shared:
        raise NotTestedError(f"{BETWEEN} and {UNTRAINED} have no site in common")
    return everywhere(
        {
            site: difference(
                trained[site],
                untrained[site],
                f"trained {trained[site].value:.3g}, random {untrained[site].value:.3g}; {trained[site].detail}",
            )
            for site in shared
        }
    )


def earliest_minus_latest(tables: Tables) -> Estimate:
    """Steepest slope at the site with most layers after it, minus that at the one with fewest."""
    sites = by_site(tables, BETWEEN, "max_slope")
    if len(sites) < 2:
        raise NotTestedError(f"regions of {BETWEEN} were studied at one site alone")
    (first, early), *_, (last, late) = sites.items()
    return difference(early, late, f"{first}: {early.value:.3g}, {last}: {late.value:.3g}; {early.detail}")


def rise_of_topk(tables: Tables) -> Estimate:
    """Rise of the unexplained share half-way, real minus covariance-random pairs, for every TopK autoencoder."""
    wanted = {"statistic": "unexplained_bump", "source": "real_minus_covariance_random"}
    rows = rows_of(tables, "spike_statistics", experiment=SPIKES, family="topk", **wanted)
    found = {}
    for _, row in rows.iterrows():
        detail = f"{int(row['n_pairs'])} pairs from {int(row['n_documents'])} documents"
        found[str(row["fit"])] = replace(estimate_of(row), detail=detail)
    return everywhere(found)


_claim = claims_of(
    table="region_statistics",
    figure=f"regions_{BETWEEN}",
    unit="mean slopes",
    criterion=Above(0.0),
    tolerance=SIGN_ALONE,
)
CLAIMS = (
    _claim(
        id="regions_emerge_in_training",
        title="Sharp boundaries between regions come from training",
        source=f"{REGIONS}; its statistic, on this study's model and prompts",
        sentence="On the way from one activation to another the output of a trained model changes more abruptly than "
        "that of a model with random weights.",
        statistic="median over paths of the largest derivative of the normalised L2 distance, trained minus random weights",
        compute=trained_minus_untrained,
        note="A straight line has 1. The largest of some differences depends on their number: both have the same steps.",
    ),
    _claim(
        id="regions_sharpen_with_layers",
        title="Layers sharpen regions",
        source=f"{DEPTH}; varying the perturbed layer is ours",
        sentence="The more layers a perturbation passes through, the more abruptly the output changes between regions.",
        statistic="median over paths of the largest derivative of the normalised L2 distance, first site minus last site",
        compute=earliest_minus_latest,
        note="Published for one perturbed layer, read at one layer after another; here one layer is read, and one after "
        "another perturbed. The ends of paths differ between the sites.",
    ),
    _claim(
        id="region_changes_are_steep",
        title="The output jumps where it changes its cluster",
        source=f"{PLATEAU_IDEAS}; clusters and statistic are ours",
        sentence="Where the output goes over from one cluster of outputs to another it moves faster than it would if "
        "the border lay anywhere on its way.",
        statistic="slope at changes of region minus slope at boundaries anywhere on the output's trajectory, first site",
        compute=partial(at_earliest_site, statistic="excess_at_region_changes"),
        note="Against changes at unrelated steps the slope would be above 1 for any output that moves unevenly.",
    ),
    _claim(
        id="cell_changes_are_steep",
        title="The output jumps where the activation changes its cluster",
        source=f"{PLATEAU_IDEAS}: a question, whether regions have to do with features; clusters and statistic are ours",
        sentence="Where the way from one activation to another leaves the cell of a k-means cluster, the output moves faster than "
        "other ways do at the same step.",
        statistic="slope at changes of cell minus the slope of other paths at the same steps, at every site that has cells",
        compute=at_sites_with_cells,
    ),
    _claim(
        id="space_is_spiky",
        title="Half-way between activations there are no activations",
        source=f"{SPIKY}; the statistic is ours",
        sentence="Half-way between two activations a sparse autoencoder with a fixed number of active latents explains "
        "less than at the ends, by more than between covariance-random vectors.",
        table="spike_statistics",
        statistic="rise of the unexplained share of the deviation from the mean, real minus covariance-random pairs",
        unit="share of deviation",
        compute=rise_of_topk,
        figure=f"spikes_{SPIKES}",
        note="TopK alone: under a threshold, latents are lost half-way in random vectors too. A linear method (PCA, where it "
        "is among the fits) shows what the statistic gives without sparsity. In the toy of "
        "superposition, with its default settings, the statistic is positive for TopK.",
    ),
)
