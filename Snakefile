# Entry point for `snakemake` in this folder; `-s workflow/Snakefile` is the same workflow with the same state.
include: "workflow/Snakefile"


# An included file cannot set the default target: without this line a bare `snakemake` would do nothing.
workflow.default_target = "all"
