"""One dictionary measured on held-out documents: one row per metric, with intervals by document."""

from actspace.jobs import begin

begin(snakemake)

import numpy as np

from actspace import provenance, tables
from actspace.activations import moments, store
from actspace.dictionaries import base, metrics


def main(job):
    cfg = job.params.cfg
    dictionary = base.load(job.input.fit[0])
    limit = moments.limit_for(job.wildcards.data, job.input.moments)
    rows = store.read(job.input.activations, first_position=cfg["first_position"], max_norm=limit)
    rng, tokens = np.random.default_rng(cfg["seed"]), rows.column("token_id")
    table = metrics.evaluate(dictionary, rows.x, rows.column("document_id"), rng, token_ids=tokens)
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    tables.write(job.output.table, table.assign(**cfg["labels"], n_latents=dictionary.n_latents), made_by)


main(snakemake)
