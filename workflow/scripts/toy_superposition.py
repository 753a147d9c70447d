"""Error and active latents of a known dictionary between sparse sums of known directions, beside their closed forms."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.perturbations import superposition


def main(job):
    table = superposition.run(job.params.cfg["toy"], job.params.cfg["seed"])
    tables.write(job.output.table, table, provenance.of(job.config["study"], job.rule, job.params, job.input))


main(snakemake)
