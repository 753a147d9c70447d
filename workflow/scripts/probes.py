"""Every probe at every layer of one capture of statements: scores, angles, what fits report, and directions."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.activations import store
from actspace.probes import evaluation, linear
from actspace.probes.statements import pairs


def main(job):
    cfg = job.params.cfg
    statements = tables.read(job.input.statements)
    activations = {
        hook: store.read([path]).x.numpy() for hook, path in zip(cfg["hooks"], job.input.activations, strict=True)
    }
    columns = (statements[name].to_numpy() for name in ("label", "group", "set"))
    study = {"seed": cfg["seed"], "pairs": pairs(statements), "n_jobs": job.threads}
    found = evaluation.evaluate(activations, *columns, cfg, **study)
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input).adding(statements=len(statements))
    for name in ("scores", "angles", "facts"):
        tables.write(job.output[name], getattr(found, name), made_by)
    provenance.write(job.output.directions, lambda path: linear.save(path, found.directions), made_by)


main(snakemake)
