"""Every probe at every layer of one capture of statements: scores, angles and directions."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.activations import store
from actspace.probes import evaluation, linear
from actspace.probes.statements import rows_at


def main(job):
    cfg = job.params.cfg
    statements = tables.read(job.input.statements)
    stored = {hook: store.read([path]) for hook, path in zip(cfg["hooks"], job.input.activations, strict=True)}
    first = next(iter(stored.values()))
    places = first.column("sequence_id"), first.column("position")
    chosen = rows_at(*places, statements["tokens"], cfg["position"])
    activations = {hook: rows.x[chosen].numpy() for hook, rows in stored.items()}
    columns = (statements[name].to_numpy() for name in ("label", "group", "set"))
    scores, angles, directions = evaluation.evaluate(activations, *columns, cfg, seed=cfg["seed"], n_jobs=job.threads)
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input).adding(statements=len(statements))
    tables.write(job.output.scores, scores, made_by)
    tables.write(job.output.angles, angles, made_by)
    provenance.write(job.output.directions, lambda path: linear.save(path, directions), made_by)


main(snakemake)
