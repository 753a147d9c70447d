"""One perturbation experiment at one site: every curve, and where each first crosses the threshold."""

from actspace.jobs import begin

begin(snakemake)

import math

import numpy as np
import torch

from actspace import models, provenance, tables, tokens
from actspace.activations import moments, store
from actspace.jobs import Progress, device
from actspace.perturbations.engine import Engine
from actspace.perturbations.experiment import Activations, run_experiment


def main(job):
    cfg = job.params.cfg
    settings = cfg["model"]
    folder = models.locate(settings["source"], job.input.get("weights"), settings["trust_remote_code"])
    model = models.load(folder, settings, device(job.resources.device))
    engine = Engine(model, cfg["site"], cfg["read"], settings["gauge"], cfg["rows_per_launch"])
    bases, pool = store.read(job.input.bases), store.read(job.input.pool)
    prompts = tables.concat_arrow(job.input.tokens)
    # Rows of a capture stand in the order of its sequences, so one choice serves tokens and activations.
    chosen = tokens.spread(prompts, cfg["experiment"]["n_prompts"])
    known = moments.load(job.input.moments)
    activations = Activations(
        token_ids=torch.from_numpy(np.stack(prompts["token_ids"].take(chosen).to_numpy())),
        documents=bases.column("document_id")[chosen],
        real=bases.x.numpy()[chosen],
        pool=pool.x.numpy(),
        pool_documents=pool.column("document_id"),
        mean=known.mean.numpy(),
        covariance=known.covariance.numpy(),
    )
    wanted = cfg["experiment"]
    n_curves = (
        wanted["n_prompts"]
        * wanted["draws"]
        * math.prod(len(wanted[axis]) for axis in ("bases", "directions", "paths"))
    )
    with Progress(n_curves, "curves") as progress:
        curves, thresholds = run_experiment(engine, wanted, activations, cfg["seed"], progress.add)
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    made_by = made_by.adding(device=str(model.device), token_passes=engine.token_passes, shared_prefix=engine.shared)
    tables.write(job.output.curves, curves, made_by)
    tables.write(job.output.thresholds, thresholds, made_by)


main(snakemake)
