"""How far the captured residuals are from the model's own logits and from the TransformerLens bridge; too far stops the study."""

from actspace.jobs import begin

begin(snakemake)

import torch

from actspace import models, provenance, tables
from actspace.activations import selfcheck
from actspace.jobs import device


def main(job):
    cfg = job.params.cfg
    settings = cfg["model"]
    folder = models.locate(settings["source"], job.input.get("weights"), settings["trust_remote_code"])
    model = models.load(folder, settings, device(job.resources.device))
    prompts = torch.randint(
        model.hf.config.vocab_size, (2, 16), generator=torch.Generator().manual_seed(cfg["seed"])
    ).to(model.device)
    table = selfcheck.check(model, folder, prompts, settings)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input).adding(device=str(model.device))
    tables.write(job.output.table, table, made_by)


main(snakemake)
