"""One sparse autoencoder that was trained elsewhere, checked and in our form."""

from actspace.jobs import begin

begin(snakemake)

import json
from pathlib import Path

from actspace import provenance
from actspace.dictionaries import given, layout, saelens
from actspace.jobs import warn_on_terminal


def main(job):
    warn_on_terminal("actspace.sources")
    cfg = job.params.cfg
    d_model = json.loads(Path(job.input.model).read_text())["d_model"]
    source = given.pinned(cfg["given"])
    folder = given.locate(**source)
    found = given.load(folder, d_model, cfg["hook"])
    theirs = layout.read_config(folder / layout.CONFIG)["metadata"]
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    made_by = made_by.adding(weights=provenance.sha256_of(folder / layout.WEIGHTS), source=source)
    saelens.write_artifacts(found, job.output.fit, job.output.cfg, {"hook_name": cfg["hook"]} | theirs, made_by)


main(snakemake)
