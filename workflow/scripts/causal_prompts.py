"""Prompts that ask about held-out statements, with their tokens, the statement's end and the tokens of the answers."""

from actspace.jobs import begin

begin(snakemake)

import json
from pathlib import Path

from actspace import models, provenance, tables
from actspace.probes import causal_prompts


def main(job):
    cfg = job.params.cfg
    folder = models.locate(cfg["source"], job.input.get("weights"), cfg["trust_remote_code"])
    tokenizer = models.load_tokenizer(folder, cfg["trust_remote_code"])
    context_length = json.loads(Path(job.input.model).read_text())["context_length"]
    table = causal_prompts.build(tables.read(job.input.statements), tokenizer, cfg, context_length)
    tables.write(job.output.prompts, table, provenance.of(job.config["study"], job.rule, job.params, job.input))


main(snakemake)
