"""Every probe at every layer of one capture of statements: scores, angles, what fits report, directions, and a picture."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.activations import store
from actspace.probes import evaluation, linear, picture
from actspace.probes.statements import pairs
from actspace.probes.summary import best_hook


def main(job):
    cfg = job.params.cfg
    statements = tables.read(job.input.statements)
    stored = {hook: store.read([path]) for hook, path in zip(cfg["hooks"], job.input.activations, strict=True)}
    activations = evaluation.activations_at(stored, statements["tokens"], cfg["position"])
    label, group, sets = (statements[name].to_numpy() for name in ("label", "group", "set"))
    study = {"seed": cfg["seed"], "pairs": pairs(statements), "n_jobs": job.threads}
    found = evaluation.evaluate(activations, label, group, sets, cfg, **study)
    hook = cfg["pictured"] or best_hook(found.scores)
    layer = found.scores.set_index("hook")["layer"][hook].iloc[0]
    points, arrows = picture.statement_planes(hook, layer, activations[hook], label, sets, found.directions)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input).adding(statements=len(statements))
    for name in ("scores", "angles", "facts"):
        tables.write(job.output[name], getattr(found, name), made_by)
    tables.write(job.output.points, points, made_by)
    tables.write(job.output.arrows, arrows, made_by)
    provenance.write(job.output.directions, lambda path: linear.save(path, found.directions), made_by)


main(snakemake)
