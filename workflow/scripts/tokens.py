"""Token sequences of one length: one table per split and shard, and none crosses a document."""

from actspace.jobs import begin

begin(snakemake)

from pathlib import Path

from actspace import corpora, models, provenance, shards, tokens
from actspace.jobs import Progress, warn_on_terminal


def main(job):
    warn_on_terminal("actspace.sources")
    cfg = job.params.cfg
    folder = models.locate(cfg["source"], job.input.get("weights"), cfg["trust_remote_code"])
    tokenizer = models.load_tokenizer(folder, cfg["trust_remote_code"])
    wheels = {"==".join(Path(path).stem.rsplit("-", 1)): Path(path) for path in job.input.wheels}
    sources = corpora.pinned(cfg["corpus"]["sources"])
    documents = corpora.chained(sources, wheels)
    settings = {**cfg["tokens"], "test_fraction": cfg["corpus"]["test_fraction"]}
    stream = tokens.Stream(documents, tokenizer, settings, cfg["seed"])
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input).adding(sources=sources)
    total = settings["train"] + settings["test"]
    with tokens.Shards(job.output.tokens, made_by) as written, Progress(total, "sequences") as progress:
        for split, shard, rows in stream:
            written.add(split, shard, rows)
            progress.add(rows.num_rows)
        written.finish()
    for path in job.output.files:
        split = Path(path).name.removesuffix(shards.SUFFIX)
        of_split = [file for file in job.output.tokens if Path(file).stem.startswith(split)]
        shards.write(path, shards.sums(of_split), made_by.adding(**stream.counts))


main(snakemake)
