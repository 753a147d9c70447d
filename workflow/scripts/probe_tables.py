"""All probe studies in one table of scores, one of their means over splits with intervals, one each of angles and facts, and what pictures draw."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.probes import summary


def main(job):
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    scores = tables.concat(job.input.scores)
    tables.write_both(job.output.scores, scores, made_by)
    tables.write_both(job.output.summary, summary.summarise(scores), made_by)
    for name in ("angles", "facts"):
        tables.write_both(job.output[name], tables.concat(job.input[name]), made_by)
    for name in ("points", "arrows"):
        tables.write(job.output[name], tables.concat(job.input[name]), made_by)


main(snakemake)
