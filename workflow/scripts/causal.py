"""Answers of the model with directions of probes, and random ones, added inside statements; one row per statement and run."""

from actspace.jobs import begin

begin(snakemake)

import pandas as pd

from actspace import models, provenance, tables
from actspace.activations import store
from actspace.jobs import Progress, device
from actspace.probes import causal, evaluation, linear


def main(job):
    cfg = job.params.cfg
    settings = cfg["model"]
    folder = models.locate(settings["source"], job.input.get("weights"), settings["trust_remote_code"])
    prompts, statements = tables.read(job.input.prompts), tables.read(job.input.statements)
    stored = {hook: store.read([path]) for hook, path in zip(cfg["hooks"], job.input.activations, strict=True)}
    activations = evaluation.activations_at(stored, statements["tokens"], cfg["position"])
    sites = causal.sites(activations, statements, linear.load(job.input.directions), cfg)
    model = models.load(folder, settings, device(job.resources.device))
    answers = causal.Answers(model, cfg["positions"], cfg["rows_per_launch"])
    parts = []
    with Progress(len(prompts), "statements") as progress:
        for part in causal.run(prompts, answers, sites):
            parts.append(part)
            progress.add(1)
    runs = pd.concat(parts, ignore_index=True).assign(experiment=cfg["experiment"])
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input).adding(**answers.record())
    tables.write(job.output.runs, runs, made_by)


main(snakemake)
