"""One dictionary measured on held-out documents: metrics with intervals by document, how often its latents fire, its pre-activations, and the
unexplained variance in each resample of the documents."""

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
    rows, training = store.read_some(job.input.activations, **select), store.Activations(job.input.training, **select)
    seeds = {name: cfg[name] for name in ("seed", "documents_seed")}
    measured = measurements.measure(dictionary, rows, training, spread, cfg["gauge"], **seeds)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    labels = {**cfg["labels"], "n_latents": dictionary.n_latents}
    for name, table in measured._asdict().items():
        tables.write(job.output[name], table.assign(**labels), made_by)


main(snakemake)
