"""One search for sensitivity optima at one site: crossings over triangles of directions, and in random subspaces."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.jobs import Progress, device
from actspace.perturbations import setting
from actspace.perturbations.optima import run_triangles
from actspace.perturbations.subspaces import n_prompts, run_subspaces


def main(job):
    cfg = job.params.cfg
    found = setting.load(job.input, cfg, device(job.resources.device))
    with Progress(cfg["n_prompts"] + n_prompts(cfg), "prompts") as progress:
        triangles = run_triangles(found, cfg, cfg["seed"], progress.add)
        subspaces = run_subspaces(found, cfg, cfg["seed"], progress.add)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    made_by = made_by.adding(**found.engine.record())
    tables.write(job.output.triangles, triangles, made_by)
    tables.write(job.output.subspaces, subspaces, made_by)


main(snakemake)
