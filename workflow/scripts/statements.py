"""Statements with their labels, sets and groups; and their tokens, one sequence per statement."""

from actspace.jobs import begin

begin(snakemake)

from actspace import models, provenance, shards, tables, tokens
from actspace.jobs import warn_on_terminal
from actspace.probes import statements


def main(job):
    warn_on_terminal("actspace.probes")
    cfg = job.params.cfg
    folder = models.locate(cfg["source"], job.input.get("weights"), cfg["trust_remote_code"])
    tokenizer = models.load_tokenizer(folder, cfg["trust_remote_code"])
    table = statements.collect(cfg["statements"], cfg["seed"])
    tokenized = tokens.statements_table(table["statement"].tolist(), tokenizer, cfg["statements"]["bos"])
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write(job.output.statements, table.assign(tokens=tokens.lengths(tokenized)), made_by)
    tables.write(job.output.tokens, tokenized, made_by)
    shards.write(job.output.files, shards.sums([job.output.tokens]), made_by)


main(snakemake)
