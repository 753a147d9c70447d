"""All probe studies in one table of scores, one of their means over splits with intervals, and one of angles."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.probes import evaluation


def main(job):
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    scores = tables.concat(job.input.scores)
    tables.write_both(job.output.scores, scores, made_by)
    tables.write_both(job.output.summary, evaluation.summarise(scores), made_by)
    tables.write_both(job.output.angles, tables.concat(job.input.angles), made_by)


main(snakemake)
