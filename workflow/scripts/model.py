"""What the model is, with the sha256 of its weights; and whether it can do all that the study asks of it."""

from actspace.jobs import begin

begin(snakemake)

import json
from pathlib import Path

from actspace import disk, hooks, models, provenance, stages
from actspace.jobs import warn_on_terminal
from actspace.reading import read_study


def main(job):
    warn_on_terminal("actspace.sources")
    source, trust = job.params.cfg["source"], job.params.cfg["trust_remote_code"]
    folder = models.locate(source, job.input.get("weights"), trust)
    description = models.describe(folder, trust)
    # Read from the config, not from params: a study that asks for one hook more is checked, but makes nothing anew.
    study = read_study(job.config)
    hooks.check_study(description, stages.checks(study))
    disk.check(study, description["d_model"], Path("results", job.config["study"]))
    description |= {"source": source, "revision": models.revision_of(source), "weights": models.weight_hashes(folder)}
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    provenance.write(
        job.output.model,
        lambda path: path.write_text(json.dumps(description, indent=1, sort_keys=True) + "\n"),
        made_by,
    )


main(snakemake)
