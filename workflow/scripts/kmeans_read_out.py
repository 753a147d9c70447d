"""The centroids of one k-means fit, read out in another way."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance
from actspace.activations import moments
from actspace.dictionaries import base, kmeans


def main(job):
    fitted, mean = base.load(job.input.fit[0]), moments.load(job.input.moments).mean
    found = kmeans.read_out(fitted, job.params.cfg["fit"]["family"], mean)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    provenance.write(job.output.fit, lambda path: base.save(found, path, {"made_by": made_by.as_json()}), made_by)


main(snakemake)
