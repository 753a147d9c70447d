"""Every pair of probes as a cascade, of one probe study: recall, false positives and cost by the share passed on."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.activations import store
from actspace.probes import cascades, evaluation, linear


def main(job):
    cfg = job.params.cfg
    statements, probes = tables.read(job.input.statements), linear.load(job.input.directions)
    stored = {hook: store.read([path]) for hook, path in zip(cfg["read"], job.input.activations, strict=True)}
    activations = evaluation.activations_at(stored, statements["tokens"], cfg["position"])
    table = cascades.evaluate(activations, statements, probes, cfg).assign(probes=cfg["label"])
    tables.write(job.output.table, table, provenance.of(job.config["study"], job.rule, job.params, job.input))


main(snakemake)
