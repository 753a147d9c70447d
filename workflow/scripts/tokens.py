"""Token sequences of one length: one table per split and shard, and none crosses a document."""

from pathlib import Path

from actspace import corpora, models, provenance, tables, tokens
from actspace.jobs import begin


def main(job):
    begin(job)
    cfg = job.params.cfg
    folder = models.locate(cfg["source"], job.input.get("weights"), cfg["trust_remote_code"])
    tokenizer = models.load_tokenizer(folder, cfg["trust_remote_code"])
    wheels = {"==".join(Path(path).stem.rsplit("-", 1)): Path(path) for path in job.input.wheels}
    documents = corpora.chained(cfg["corpus"]["sources"], wheels)
    settings = {**cfg["tokens"], "test_fraction": cfg["corpus"]["test_fraction"]}
    splits, counts = tokens.make(documents, tokenizer, settings, cfg["seed"])
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input).adding(**counts)
    shards = [shard for split in ("train", "test") for shard in tokens.shards(splits[split], settings["shards"])]
    for path, shard in zip(job.output.tokens, shards, strict=True):
        tables.write(path, shard, made_by)


if __name__ == "__main__":
    main(snakemake)
