"""Language modelling with reconstructions in place of activations: loss and KL recovered, for every fit of one hook."""

from actspace.jobs import begin

begin(snakemake)

from actspace import models, provenance, shards, tables, tokens
from actspace.activations import moments
from actspace.dictionaries import base, splice
from actspace.jobs import device


def main(job):
    cfg = job.params.cfg
    settings = cfg["model"]
    folder = models.locate(settings["source"], job.input.get("weights"), settings["trust_remote_code"])
    model = models.load(folder, settings, device(job.resources.device))
    _, sequences = tokens.chosen(shards.expand(job.input.tokens), cfg["sequences"])
    fits = base.load_fits(job.input.fits, model.device)
    mean = moments.load(job.input.moments).mean
    table, passes = splice.evaluate(
        model, sequences, fits, mean, cfg["hook"], settings["gauge"], cfg["first_position"], cfg["seed"]
    )
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input).adding(
        device=str(model.device), token_passes=passes
    )
    tables.write(job.output.table, splice.labelled(table, cfg["labels"]), made_by)


main(snakemake)
