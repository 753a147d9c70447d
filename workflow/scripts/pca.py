"""One dictionary of principal components."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance
from actspace.activations import moments, store
from actspace.dictionaries import base, pca


def main(job):
    cfg = job.params.cfg
    limit = moments.limit_for(job.wildcards.data, job.input.moments)
    rows = store.Activations(job.input.activations, first_position=cfg["first_position"], max_norm=limit)
    _, mean, covariance = moments.accumulate(part.x for part in rows.groups())
    found = pca.fit(mean.numpy(), covariance.numpy(), **cfg["fit"])
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    provenance.write(job.output.fit, lambda path: base.save(found, path, {"made_by": made_by.as_json()}), made_by)


main(snakemake)
