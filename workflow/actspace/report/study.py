"""The page of one study, from its config, tables, figures and receipts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from actspace.manifest import Receipts, token_passes, versions
from actspace.report import explore, page
from actspace.report.figures import available_figures

PREVIEW_ROWS, PREVIEW_CONTEXTS = 30, 120
TITLES = {
    "activations": "Activations by hook point: norms, distances, rank",
    "dictionary_metrics": "Metrics of every dictionary",
    "dictionary_structure": "Structure beyond covariance: unexplained variance on data without structure, minus that on real data",
    "dictionary_matches": "Latents matched between fits, and how they split",
    "top_contexts": "Where latents and clusters are most active: a random sample of each fit",
    "training_curves": "Training curves",
    "rate_distortion": "Least unexplained variance of Gaussian data by bits per vector",
    "toy_truth": "Toy of truth",
    "probe_summary": "Probe scores over splits",
    "probe_scores": "Probe scores of every split",
    "probe_angles": "Angles between probes",
    "probe_cascades": "Cascades of two probes: recall by the share passed on",
    "probe_facts": "What fits of probes report: shrinkage, rank",
    "causal_effects": "Effects of probe directions on the model's answers",
    "concept_unions": "Unions of concepts as sums of their parts",
    "concept_intensity": "Intensity as length along one direction",
    "perturbation_statistics": "Statistics of every arm",
    "perturbation_comparisons": "Comparisons of arms",
    "perturbation_thresholds": "Threshold crossings",
    "optima_statistics": "Sensitivity optima: corners, neighbours and subspaces",
    "plane_statistics": "Planes: slopes around activations",
    "region_statistics": "Statistics of regions",
    "spike_statistics": "Rises half-way between activations",
    "claims": "Claims",
}


def render(
    study: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    figures: Sequence[str],
    receipts: Receipts,
    timings: pd.DataFrame,
    date: str,
) -> str:
    """Render the report.

    Parameters
    ----------
    study : the resolved config
    tables : tables by name; `claims` and `untested_claims` among them
    figures : paths of the SVG files, named by figure
    receipts : receipts of the study's artifacts, by path
    timings : what its jobs took, as `timings.summed` returns it
    date : shown at the top
    """
    drawn = {Path(path).stem: Path(path).read_text(encoding="utf-8") for path in figures}
    specs = {name: spec for name, spec in available_figures(tables).items() if name in drawn}
    views = explore.views(tables)
    return page.render(
        title=study["title"] or study["study"],
        model=_model(receipts),
        corpus=_corpus(study, receipts),
        date=date,
        study=study,
        claims=tables["claims"],
        untested=tables["untested_claims"],
        figures=[
            page.PageFigure(name, spec.section, spec.title, drawn[name], spec.caption(tables), views.get(name))
            for name, spec in specs.items()
        ],
        tables=[
            page.PageTable(title, f"tables/{name}.csv", preview(name, tables[name]))
            for name, title in TITLES.items()
            if name in tables
        ],
        environment=_environment(receipts),
        provenance=_provenance(tables, receipts),
        timings=timings,
    )


def preview(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return what the page shows of a table: its first rows; of contexts the text, with the token marked."""
    if name != "top_contexts":
        return table.head(PREVIEW_ROWS)
    table = table.head(PREVIEW_CONTEXTS)
    shown = [page.marked(*texts) for texts in zip(table["before"], table["token"], table["after"], strict=True)]
    # As objects: a column of strings would forget that these are escaped already.
    context = pd.Series(shown, index=table.index, dtype=object)
    return table[["hook", "fit", "latent", "rank", "activation"]].assign(context=context)


def _model(receipts: Receipts) -> str:
    """Name the model by its source and what pins it."""
    source = _receipt(receipts, "model.json")["cfg"]["source"]
    name = {"hub": "repo", "folder": "path", "gguf": "path", "package": "member"}[source["kind"]]
    pin = source.get("revision") or source.get("sha256", "")
    return f"{Path(source[name]).name if source['kind'] == 'package' else source[name]} ({source['kind']}{', ' + pin[:12] if pin else ''})"


def _corpus(study: Mapping[str, Any], receipts: Receipts) -> str:
    """Name the sources of text, and say how much of it was used."""
    if not study["corpus"]:
        return "statements only"
    names = [Path(s.get("member") or s.get("path") or s["repo"]).name for s in study["corpus"]["sources"]]
    made = [record for record in receipts.values() if record["rule"].startswith("tokens_")]
    sets = {
        record["rule"]: record["extra"] for record in made if "tokens" in record["extra"]
    }  # the lists have the counts
    counts = [
        f"{rule.removeprefix('tokens_')}: {extra['tokens']:,} tokens of {extra['documents_used']:,} documents"
        for rule, extra in sorted(sets.items())
    ]
    return f"{' + '.join(names)} ({'; '.join(counts)})"


def _environment(receipts: Receipts) -> dict[str, Any]:
    """Collect where jobs ran: the versions of the software, all of them where jobs differ, and the devices."""
    devices = sorted({record["extra"]["device"] for record in receipts.values() if "device" in record["extra"]})
    return {**versions(receipts.values()), "devices": devices}


def _provenance(tables: Mapping[str, pd.DataFrame], receipts: Receipts) -> dict[str, Any]:
    """Collect what made the results: cost, self-checks, hashes of the weights."""
    checks = tables["selfcheck"]
    worst, allowed = checks["relative_deviation"].max(), checks["tolerance"].max()
    return {
        "full-depth token passes": f"{token_passes(receipts.values()):,.0f}",
        "files": f"{len(receipts)}, each with its sha256 in manifest.json",
        "model description (sha256)": _receipt(receipts, "model.json")["sha256"],
        "self-checks": f"{len(checks)} passed; largest relative deviation {worst:.1e}, allowed {allowed:.0e}",
    }


def _receipt(receipts: Receipts, name: str) -> dict[str, Any]:
    return next(record for path, record in receipts.items() if Path(path).name == name)
