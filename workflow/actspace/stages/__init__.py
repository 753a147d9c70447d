"""Which part of a study each stage uses, and which members each stage has.

A stage's cfg holds just the keys it uses, so that changing any other reruns nothing; it is sorted by key, because Snakemake compares its text.
Seeds in a cfg are derived from the study's seed and the member's own key."""

# ruff: noqa: F403 - rules look up stages by name, whichever section they are of
from actspace.stages.base import *
from actspace.stages.captures import *
from actspace.stages.dictionaries import *
from actspace.stages.fit_names import *
from actspace.stages.inputs import *
from actspace.stages.outputs import *
from actspace.stages.perturbations import *
from actspace.stages.probing import *
