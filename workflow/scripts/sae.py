"""One sparse autoencoder, and its training curve; a run that was killed goes on from its checkpoint."""

from actspace.jobs import begin

begin(snakemake)

from pathlib import Path

from actspace import provenance, shards, tables
from actspace.activations import moments, store
from actspace.dictionaries import saelens
from actspace.dictionaries.sae.checkpoint import Checkpoint
from actspace.dictionaries.sae.train import train
from actspace.jobs import Progress, device


def main(job):
    cfg = job.params.cfg
    limit = moments.limit_for(job.wildcards.data, job.input.moments)
    rows = store.Activations(job.input.activations, first_position=cfg["first_position"], max_norm=limit)
    where = device(job.resources.device)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input).adding(device=where)
    checkpoint = Checkpoint(Path(f"{job.output.fit}.checkpoint"), made_by.as_json())
    with Progress(cfg["fit"]["vectors"], "vectors") as progress:
        found, curve = train(rows, cfg["fit"], cfg["seed"], where, progress.add, checkpoint)
    about = {"hook_name": job.wildcards.hook} | saelens.of_model(shards.settings(job.input.activations))
    saelens.write_artifacts(found, job.output.fit, job.output.cfg, about, made_by)
    labels = {"data": job.wildcards.data, "hook": job.wildcards.hook, "fit": job.wildcards.fit}
    tables.write(job.output.curve, curve.assign(**labels), made_by)
    checkpoint.remove()


main(snakemake)
