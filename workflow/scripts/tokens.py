"""Token sequences of one length: one table per split and shard, and none crosses a document."""

from actspace.jobs import begin

begin(snakemake)

from contextlib import ExitStack
from pathlib import Path

from actspace import corpora, models, provenance, shards, tables, tokens
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
    with ExitStack() as open_files, Progress(settings["train"] + settings["test"], "sequences") as progress:
        files = {
            Path(path).stem: open_files.enter_context(tables.Growing(path, tokens.ROWS_PER_GROUP, compression="zstd"))
            for path in job.output.tokens
        }
        for split, shard, rows in stream:
            files[f"{split}-{shard:03d}"].add(rows)
            progress.add(rows.num_rows)
        made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
        made_by = made_by.adding(**stream.counts, sources=sources)
        for file in files.values():
            file.finish(made_by)
    for path in job.output.files:
        split = Path(path).name.removesuffix(shards.SUFFIX)
        shards.write(
            path, shards.sums(file for file in job.output.tokens if Path(file).stem.startswith(split)), made_by
        )


main(snakemake)
