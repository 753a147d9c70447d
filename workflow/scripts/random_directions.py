"""One SAE that nobody trained: random directions around the mean, in the format of SAELens like the others."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, shards
from actspace.activations import moments, store
from actspace.dictionaries import nulls, saelens


def main(job):
    cfg = job.params.cfg
    limit = moments.limit_for(job.wildcards.data, job.input.moments)
    rows = store.read_some(job.input.activations, first_position=cfg["first_position"], max_norm=limit)
    found = nulls.random_directions(rows.x, **cfg["fit"], seed=cfg["seed"])
    about = {"hook_name": job.wildcards.hook} | saelens.of_model(shards.settings(job.input.activations))
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    saelens.write_artifacts(found, job.output.fit, job.output.cfg, about, made_by)


main(snakemake)
