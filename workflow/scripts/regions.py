"""Walks from one prompt's activation to another's at one site: how the output moves, and which region it is in."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.dictionaries import base
from actspace.jobs import Progress, device
from actspace.perturbations import regions, setting


def main(job):
    cfg = job.params.cfg
    found = setting.load(job.input, cfg, device(job.resources.device))
    cells = base.load(job.input.cells[0]) if job.input.cells else None
    with Progress(cfg["n_prompts"] * cfg["pairs"], "paths") as progress:
        table = regions.run_regions(found, cfg, cfg["seed"], cells, progress.add)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input).adding(**found.engine.record())
    tables.write(job.output.table, table, made_by)


main(snakemake)
