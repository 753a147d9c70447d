"""Activations without structure, under the keys of the real rows: a Gaussian's, or real ones with shuffled dimensions."""

from actspace.jobs import begin

begin(snakemake)

import numpy as np
import torch

from actspace import provenance
from actspace.activations import moments, store
from actspace.dictionaries import nulls


def main(job):
    cfg = job.params.cfg
    real = moments.load(job.input.moments)
    rows = store.read(job.input.activations, first_position=cfg["select"]["first_position"], max_norm=real.max_norm)
    rng = np.random.default_rng(cfg["seed"])
    if cfg["null"] == "shuffled":
        drawn = nulls.shuffled_dimensions(rows.x.numpy(), rng)
    else:
        drawn = nulls.gaussian_surrogate(real.mean.numpy(), real.covariance.numpy(), len(rows), rng)
    keys = {name: rows.keys[name] for name in store.KEYS if name != "norm"}
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    store.write(job.output.activations, torch.from_numpy(drawn), keys, "float32", made_by)


main(snakemake)
