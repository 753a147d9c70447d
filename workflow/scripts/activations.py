"""Activations of one shard at every hook of a capture: one table per hook, one row per stored token position."""

from pathlib import Path

from actspace import models, provenance, tables
from actspace.activations import capture, store
from actspace.jobs import begin, device


def main(job):
    begin(job)
    cfg = job.params.cfg
    settings, wanted = cfg["model"], cfg["capture"]
    folder = models.locate(settings["source"], job.input.get("weights"), settings["trust_remote_code"])
    model = models.load(folder, settings, device(job.resources.device))
    sequences = tables.read_arrow(job.input.tokens)
    read = capture.capture(
        model,
        sequences,
        wanted["hooks"],
        positions=wanted["positions"],
        gauge=settings["gauge"],
        batch_tokens=cfg["batch_tokens"],
    )
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    made_by = made_by.adding(device=str(model.device), token_passes=read.token_passes, position=wanted["positions"])
    for hook, path in zip(wanted["hooks"], job.output.activations, strict=True):
        where = f"captures: {Path(path).parent.name}: {Path(path).stem}"
        store.write(
            path, store.table(read.activations[hook], read.keys, wanted["storage"], where), made_by.adding(hook=hook)
        )


if __name__ == "__main__":
    main(snakemake)
