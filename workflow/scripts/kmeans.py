"""One k-means dictionary."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance
from actspace.activations import moments, store
from actspace.dictionaries import base, kmeans
from actspace.jobs import device


def main(job):
    cfg = job.params.cfg
    limit = moments.limit_for(job.wildcards.data, job.input.moments)
    rows = store.Activations(job.input.activations, first_position=cfg["first_position"], max_norm=limit)
    place = {"n_threads": job.threads, "device": device(job.resources.device)}
    found = kmeans.fit(kmeans.data_of(rows), **cfg["fit"], seed=cfg["seed"], **place)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    made_by = made_by.adding(inertia=found.inertia, iterations=found.iterations, converged=found.converged)
    provenance.write(
        job.output.fit, lambda path: base.save(found.dictionary, path, {"made_by": made_by.as_json()}), made_by
    )


main(snakemake)
