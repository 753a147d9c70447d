"""Planes through activations at one site: the output at every point of a grid, and at the activations."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.jobs import Progress, device
from actspace.perturbations import setting
from actspace.perturbations.planes import run_planes


def main(job):
    cfg = job.params.cfg
    found = setting.load(job.input, cfg, device(job.resources.device))
    with Progress(cfg["n_prompts"], "planes") as progress:
        points, corners = run_planes(found, cfg, cfg["seed"], progress.add)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    made_by = made_by.adding(**found.engine.record())
    tables.write(job.output.points, points, made_by)
    tables.write(job.output.corners, corners, made_by)


main(snakemake)
