"""Activations without structure, under the keys of the real rows: a Gaussian's, or real ones with shuffled dimensions."""

from actspace.jobs import begin

begin(snakemake)

import torch

from actspace import provenance
from actspace.activations import moments, store
from actspace.dictionaries import nulls


def main(job):
    cfg = job.params.cfg
    real = moments.load(job.input.moments)
    rows = store.read(job.input.activations, first_position=cfg["select"]["first_position"], max_norm=real.max_norm)
    drawn = nulls.surrogate(cfg["null"], rows.x.numpy(), real, cfg["seed"])
    keys = {name: rows.keys[name] for name in store.KEYS if name != "norm"}
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    store.write(job.output.activations, torch.from_numpy(drawn), keys, "float32", made_by)


main(snakemake)
