"""Top activating contexts of a sample of latents and clusters of every fit at one hook point, as text."""

from actspace.jobs import begin

begin(snakemake)

from functools import partial

from actspace import models, provenance, shards, tables
from actspace.activations import moments, store
from actspace.dictionaries import base, contexts


def main(job):
    cfg = job.params.cfg
    folder = models.locate(cfg["source"], job.input.get("weights"), cfg["trust_remote_code"])
    tokenizer = models.load_tokenizer(folder, cfg["trust_remote_code"])
    decode = partial(tokenizer.decode, clean_up_tokenization_spaces=False)
    limit = moments.limit_for("real", job.input.moments)
    rows = store.read_some(job.input.activations, first_position=cfg["first_position"], max_norm=limit)
    sequences = tables.having(shards.expand(job.input.tokens), "sequence_id", rows.keys["sequence_id"].unique())
    fits = base.load_fits(job.input.fits)
    table = contexts.top_contexts(fits, rows, sequences, decode, cfg["labels"], cfg["seed"])
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write(job.output.table, table, made_by)


main(snakemake)
