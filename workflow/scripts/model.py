"""What the model is, with the sha256 of its weights; and whether it can do all that the study asks of it."""

import json
from pathlib import Path

from actspace import models, provenance
from actspace.jobs import log_to


def main(job):
    log_to(job.log[0])
    cfg = job.params.cfg
    source = cfg["model"]["source"]
    folder = models.locate(source, job.input.get("weights"), cfg["model"]["trust_remote_code"])
    description = models.describe(folder, cfg["model"]["trust_remote_code"])
    models.check_study(description, cfg)
    description |= {"source": source, "revision": models.revision_of(source), "weights": models.weight_hashes(folder)}
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    provenance.write(job.output.model, lambda path: path.write_text(json.dumps(description, indent=1, sort_keys=True) + "\n"), made_by)


if __name__ == "__main__":
    main(snakemake)
