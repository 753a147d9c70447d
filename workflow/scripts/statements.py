"""Statements with their labels, sets and groups; and their tokens, one sequence per statement."""

from actspace.jobs import begin

begin(snakemake)

from actspace import models, provenance, tables, tokens
from actspace.probes import statements


def main(job):
    cfg = job.params.cfg
    folder = models.locate(cfg["source"], job.input.get("weights"), cfg["trust_remote_code"])
    tokenizer = models.load_tokenizer(folder, cfg["trust_remote_code"])
    table = statements.collect(cfg["statements"], cfg["seed"])
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    tables.write(job.output.statements, table, made_by)
    tables.write(
        job.output.tokens,
        tokens.statements_table(table["statement"].tolist(), tokenizer, cfg["statements"]["bos"]),
        made_by,
    )


main(snakemake)
