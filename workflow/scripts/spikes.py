"""Error and active latents of dictionaries along segments between held-out activations, and between random vectors."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.activations import moments, store
from actspace.dictionaries import base
from actspace.perturbations import spikes
from actspace.perturbations.bases import fit_gaussian


def main(job):
    cfg, known = job.params.cfg, moments.load(job.input.moments)
    rows = store.read_some(job.input.activations, first_position=cfg["first_position"], max_norm=known.max_norm)
    pairs = [
        spikes.real_pairs(rows.x, rows.column("document_id"), cfg["pairs"], cfg["seed"]),
        spikes.random_pairs(fit_gaussian(known.mean, known.covariance), cfg["pairs"], cfg["seed"]),
    ]
    fits = base.load_fits(job.input.fits)
    total_variance = float(known.covariance.trace())
    table = spikes.run(fits, pairs, cfg["steps"], known.mean, total_variance, cfg["labels"])
    tables.write(job.output.table, table, provenance.of(job.config["study"], job.rule, job.params, job.input))


main(snakemake)
