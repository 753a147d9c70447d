"""The model of a GGUF file as a folder of float32 safetensors, with its tokenizer."""

import tempfile
from pathlib import Path

from actspace import models, provenance
from actspace.jobs import begin


def main(job):
    begin(job)
    source = job.params.cfg["source"]
    with tempfile.TemporaryDirectory() as folder:
        gguf = models.gguf_of(source, Path(job.input.gguf), Path(folder))
        models.convert_gguf(gguf, Path(job.output.config).parent)
    provenance.stamp(job.output.weights, provenance.of("resources", job.rule, job.params, job.input))


if __name__ == "__main__":
    main(snakemake)
