"""The model of a GGUF file as a folder of float32 safetensors, with its tokenizer."""

from actspace.jobs import begin

begin(snakemake)

import tempfile
from pathlib import Path

from actspace import models, provenance


def main(job):
    source = job.params.cfg["source"]
    with tempfile.TemporaryDirectory() as folder:
        gguf = models.gguf_of(source, Path(job.input.gguf), Path(folder))
        models.convert_gguf(gguf, Path(job.output.config).parent)
    provenance.stamp(job.output.weights, provenance.of("resources", job.rule, job.params, job.input))


main(snakemake)
