"""Phrases of one set with the words that fill their blanks; and their tokens, one sequence per phrase."""

from actspace.jobs import begin

begin(snakemake)

from actspace import models, provenance, shards, tables, tokens
from actspace.probes import phrases


def main(job):
    cfg = job.params.cfg
    folder = models.locate(cfg["source"], job.input.get("weights"), cfg["trust_remote_code"])
    tokenizer = models.load_tokenizer(folder, cfg["trust_remote_code"])
    table = phrases.fill(cfg["concept"])
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input).adding(phrases=len(table))
    tables.write(job.output.phrases, table, made_by)
    sequences = tokens.statements_table(table[phrases.PHRASE].tolist(), tokenizer, cfg["concept"]["bos"])
    tables.write(job.output.tokens, sequences, made_by)
    shards.write(job.output.files, shards.sums([job.output.tokens]), made_by)


main(snakemake)
