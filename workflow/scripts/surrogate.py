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
    select = {"first_position": cfg["select"]["first_position"], "max_norm": real.max_norm}
    draw = nulls.surrogate(cfg["null"], real, cfg["seed"])
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    with store.Writer({"": job.output.activations}) as writer:
        for block in store.Activations(job.input.activations, **select).blocks():
            drawn = torch.from_numpy(draw(block.x.numpy()))
            keys = {name: block.keys[name] for name in store.KEYS if name != "norm"}
            writer.add({"": store.to_stored(drawn, "float32")}, keys)
        writer.finish({"": made_by})


main(snakemake)
