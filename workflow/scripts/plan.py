"""What the study has still to run, on the terminal: tokens, rows, bytes, operations, and time from a short measurement on the chosen device."""

from actspace.jobs import begin

begin(snakemake)

import time

STARTED = time.monotonic()

from functools import partial
from pathlib import Path

from actspace import hooks, models, plan, speed, stages
from actspace.jobs import device
from actspace.reading import read_study

PROBE_SECONDS = 5


def main(job):
    settings, study = job.params.cfg, read_study(job.config)
    folder = models.locate(settings["source"], job.input.get("weights"), settings["trust_remote_code"])
    hooks.check_study(models.describe(folder, settings["trust_remote_code"]), stages.checks(study))
    model = models.load(folder, settings, device(job.resources.device))
    start = time.monotonic() - STARTED
    results = Path("results", study.study)
    measure = partial(speed.tokens_per_second, model, study.compute.batch_tokens)
    work = plan.remaining(study, speed.shape_of(model), results)
    work = plan.timed(work, measure, PROBE_SECONDS, start)
    print(plan.table(work), plan.summary(study, work, results, str(model.device), start), sep="\n\n", flush=True)


main(snakemake)
