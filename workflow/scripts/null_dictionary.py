"""One dictionary that nobody fitted: random data points, or mean activations by token."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance
from actspace.activations import moments, store
from actspace.dictionaries import base, nulls


def main(job):
    cfg = job.params.cfg
    limit = moments.limit_for(job.wildcards.data, job.input.moments)
    select = {"first_position": cfg["first_position"], "max_norm": limit}
    if cfg["fit"]["kind"] == "random_points":
        rows = store.Activations(job.input.activations, **select)
        found = nulls.random_points(rows, cfg["fit"]["n_clusters"], cfg["seed"])
    else:
        rows = store.read_some(job.input.activations, **select)
        found = nulls.token_identity(rows.x, rows.column("token_id"))
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    provenance.write(job.output.fit, lambda path: base.save(found, path, {"made_by": made_by.as_json()}), made_by)


main(snakemake)
