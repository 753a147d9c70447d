"""One sparse autoencoder that was trained elsewhere, checked and in our form."""

from actspace.jobs import begin

begin(snakemake)

import json
from pathlib import Path

from actspace import provenance
from actspace.dictionaries import given, layout, saelens


def main(job):
    cfg = job.params.cfg
    d_model = json.loads(Path(job.input.model).read_text())["d_model"]
    folder = given.locate(**cfg["given"])
    found = given.load(folder, d_model, cfg["hook"])
    theirs = layout.read_config(folder / layout.CONFIG)["metadata"]
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    made_by = made_by.adding(weights=provenance.sha256_of(folder / layout.WEIGHTS))
    saelens.write_artifacts(found, job.output.fit, job.output.cfg, {"hook_name": cfg["hook"]} | theirs, made_by)


main(snakemake)
