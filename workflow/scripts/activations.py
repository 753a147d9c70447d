"""Activations of one shard at hooks of a capture: one table per hook, one row per stored token position."""

from actspace.jobs import begin

begin(snakemake)

from pathlib import Path

from actspace import models, provenance, shards, tables
from actspace.activations import capture, store
from actspace.jobs import Progress, device


def main(job):
    cfg = job.params.cfg
    settings, wanted = cfg["model"], cfg["capture"]
    folder = models.locate(settings["source"], job.input.get("weights"), settings["trust_remote_code"])
    model = models.load(folder, settings, device(job.resources.device))
    tokens = shards.named(job.input.tokens, f"{job.wildcards.split}-{job.wildcards.shard}")
    inputs = [*job.input, tokens, provenance.receipt_of(tokens)]
    rule = job.rule.removeprefix(
        "added_"
    )  # a file is the same whether its hook point was there from the start or was added
    made_by = provenance.of(job.config["study"], rule, job.params, inputs)
    paths = {Path(path).parent.name: path for path in job.output.activations}
    read = capture.chunks(
        model,
        tables.stream(tokens),
        [*paths],
        positions=wanted["positions"],
        storage=wanted["storage"],
        gauge=settings["gauge"],
        batch_tokens=cfg["batch_tokens"],
    )
    total = sum(len(capture.tokens_of(part)[0]) for part in tables.stream(tokens))
    with store.Writer(paths) as writer, Progress(total, "tokens") as progress:
        for chunk in read:
            writer.add(chunk.stored, chunk.keys, chunk.ready)
            progress.add(chunk.tokens)
        made_by = made_by.adding(
            device=str(model.device),
            batch_tokens=chunk.batch_tokens,
            position=wanted["positions"],
        )
        writer.finish(
            {hook: made_by.adding(hook=hook, token_passes=capture.cost(model, hook, progress.done)) for hook in paths}
        )


main(snakemake)
