"""One dictionary measured on held-out documents: metrics with intervals by document, how often its latents fire, and its pre-activations."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.activations import moments, store
from actspace.dictionaries import base, measurements


def main(job):
    cfg = job.params.cfg
    dictionary, spread = base.load(job.input.fit[0]), moments.load(job.input.moments)
    select = {
        "first_position": cfg["first_position"],
        "max_norm": moments.limit_for(job.wildcards.data, job.input.moments),
    }
    rows, training = store.read(job.input.activations, **select), store.Activations(job.input.training, **select)
    measured = measurements.measure(dictionary, rows, training, spread, cfg["gauge"], cfg["seed"])
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    labels = {**cfg["labels"], "n_latents": dictionary.n_latents}
    outputs = (job.output.table, job.output.density, job.output.preactivations)
    for path, table in zip(outputs, measured, strict=True):
        tables.write(path, table.assign(**labels), made_by)


main(snakemake)
