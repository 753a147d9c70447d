"""One capture of phrases: how far unions are sums of their parts, or along which directions grades lie, at every hook."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.activations import store
from actspace.probes import intensity, phrases, unions

KINDS = {"unions": unions.evaluate, "intensity": intensity.evaluate}


def main(job):
    cfg = job.params.cfg
    activations = {
        hook: store.read([path]).x.numpy() for hook, path in zip(cfg["hooks"], job.input.activations, strict=True)
    }
    words = tables.read(job.input.phrases).drop(columns=phrases.PHRASE)
    table = KINDS[cfg["kind"]](activations, words, cfg["folds"], cfg["seed"]).assign(**cfg["labels"])
    tables.write(job.output.table, table, provenance.of(job.config["study"], job.rule, job.params, job.input))


main(snakemake)
