"""One perturbation experiment at one site: every curve, and where each first crosses the threshold."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.jobs import Progress, device
from actspace.perturbations import setting
from actspace.perturbations.experiment import n_curves, run_experiment


def main(job):
    cfg = job.params.cfg
    found = setting.load(job.input, cfg, device(job.resources.device))
    with Progress(n_curves(cfg), "curves") as progress:
        curves, thresholds = run_experiment(found, cfg, cfg["seed"], progress.add)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    made_by = made_by.adding(**found.engine.record())
    tables.write(job.output.curves, curves, made_by)
    tables.write(job.output.thresholds, thresholds, made_by)


main(snakemake)
