"""One dictionary that nobody fitted: random data points, or mean activations by token."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance
from actspace.activations import moments, store
from actspace.dictionaries import base, nulls


def main(job):
    cfg = job.params.cfg
    limit = moments.limit_for(job.wildcards.data, job.input.moments)
    rows = store.read_some(job.input.activations, first_position=cfg["first_position"], max_norm=limit)
    found = nulls.dictionary(rows.x, rows.column("token_id"), **cfg["fit"], seed=cfg["seed"])
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    provenance.write(job.output.fit, lambda path: base.save(found, path, {"made_by": made_by.as_json()}), made_by)


main(snakemake)
