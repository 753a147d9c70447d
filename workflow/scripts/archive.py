"""The archive of the study: results, config, code, versions, and metadata that say what they are."""

from actspace.jobs import begin

begin(snakemake)

import json
from functools import partial
from pathlib import Path

from actspace import archive, crate, manifest, provenance
from actspace.reading import read_study


def main(job):
    # Read from the config, not from params: these are sorted by key, and the order of members is part of a study.
    study, date = read_study(job.config), archive.date_of(Path(job.input.report))
    results = Path(job.input.manifest).parent
    members, left_out = archive.members(study, results, job.input.given)
    model, receipts = json.loads(Path(job.input.model).read_text()), manifest.read_receipts(job.input.receipts)
    run = crate.Run(results, model, receipts, job.params.cfg["code"], date)
    describe = partial(crate.describe, study, run)
    made_by = provenance.of(study.study, job.rule, job.params, [job.input.manifest])
    provenance.write(job.output.archive, lambda path: archive.write(path, members, left_out, date, describe), made_by)


main(snakemake)
