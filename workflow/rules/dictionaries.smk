# Dictionaries: one target per fit; the same fits on real data and on nulls; all measured on held-out documents.

FIT = f"{R}/dictionaries/{{dictionaries}}/{{hook}}/{{data}}/{{fit}}"
FIT_LOG = f"{R}/logs/dictionaries/{{dictionaries}}/{{hook}}/{{data}}/{{fit}}"


def fit_data(split):
    """Rows of one split that a dictionary is fitted to or measured on: the capture's, or those of a surrogate of it."""

    def paths(wildcards):
        capture = STUDY.dictionaries[wildcards.dictionaries].capture
        if wildcards.data == "real":
            return shards_of(capture, wildcards.hook, split)
        return [f"{R}/surrogates/{wildcards.data}/{capture}/{wildcards.hook}/{split}.parquet".format(study=STUDY.study)]

    return paths


def fit_moments(wildcards):
    return moments_of(STUDY.dictionaries[wildcards.dictionaries].capture, wildcards.hook)


def real_fits(wildcards):
    members = fit_members(wildcards.dictionaries)
    return [f"{path}.safetensors" for data, hook, path in members if data == "real" and hook == wildcards.hook]


def splice_tokens(wildcards):
    return token_parts(STUDY.captures[STUDY.dictionaries[wildcards.dictionaries].capture].tokens, "test")


def all_metrics():
    """Tables of every fit, and of the fits that were spliced into the model."""
    paths = [f"{path}.metrics.parquet" for name in STUDY.dictionaries for _, _, path in fit_members(name)]
    spliced = [(name, hook) for name, member in STUDY.dictionaries.items() if member.splice_sequences for hook in member.hooks]
    return paths + [f"results/{STUDY.study}/dictionaries/{name}/{hook}/splice.parquet" for name, hook in spliced]


def all_curves():
    """Training curves of every SAE."""
    paths = [path for name in STUDY.dictionaries for _, _, path in fit_members(name)]
    return [f"{path}.curve.parquet" for path in paths if Path(path).name.startswith(("topk", "l1"))]


def fit_members(dictionaries):
    """Data, hook and path (without suffix) of every fit of a dictionary study."""
    member = STUDY.dictionaries[dictionaries]
    return [
        (data, hook, FIT.format(study=STUDY.study, dictionaries=dictionaries, hook=hook, data=data, fit=fit))
        for hook in member.hooks
        for data in ["real", *member.nulls]
        for fit in stages.fits(member)
    ]


rule kmeans:
    input:
        **needs(activations=fit_data("train"), moments=fit_moments),
    output:
        **made(fit=f"{FIT}.safetensors"),
    wildcard_constraints:
        fit="kmeans-[^/]+",
    log:
        f"{FIT_LOG}.log",
    params:
        cfg=stage_cfg("fit"),
        code=code("kmeans"),
    conda:
        "../../envs/actspace.yaml"
    group:
        "fits"
    script:
        "../scripts/kmeans.py"


rule pca:
    input:
        **needs(activations=fit_data("train"), moments=fit_moments),
    output:
        **made(fit=f"{FIT}.safetensors"),
    wildcard_constraints:
        fit="pca-[^/]+",
    log:
        f"{FIT_LOG}.log",
    params:
        cfg=stage_cfg("fit"),
        code=code("pca"),
    conda:
        "../../envs/actspace.yaml"
    group:
        "fits"
    script:
        "../scripts/pca.py"


rule sae:
    input:
        **needs(activations=fit_data("train"), moments=fit_moments),
    output:
        **made(fit=f"{FIT}.safetensors", curve=f"{FIT}.curve.parquet"),
    wildcard_constraints:
        fit="(topk|l1)-[^/]+",
    log:
        f"{FIT_LOG}.log",
    params:
        cfg=stage_cfg("fit"),
        code=code("sae"),
    conda:
        "../../envs/actspace.yaml"
    resources:
        **on_device(),
        mem_mb=4000,
        runtime=240,
    script:
        "../scripts/sae.py"


rule dictionary_metrics:
    input:
        **needs(fit=f"{FIT}.safetensors", activations=fit_data("test"), moments=fit_moments),
    output:
        **made(table=f"{FIT}.metrics.parquet"),
    log:
        f"{FIT_LOG}.metrics.log",
    params:
        cfg=stage_cfg("dictionary_metrics"),
        code=code("dictionary_metrics"),
    conda:
        "../../envs/actspace.yaml"
    group:
        "fits"
    script:
        "../scripts/dictionary_metrics.py"


rule splice:
    input:
        **model_inputs(),
        **needs(fits=real_fits, tokens=splice_tokens, moments=fit_moments),
    output:
        **made(table=f"{R}/dictionaries/{{dictionaries}}/{{hook}}/splice.parquet"),
    log:
        f"{R}/logs/dictionaries/{{dictionaries}}/{{hook}}/splice.log",
    params:
        cfg=stage_cfg("splice"),
        code=code("splice"),
    conda:
        "../../envs/actspace.yaml"
    threads: 2
    resources:
        **on_device(),
        mem_mb=8000,
    script:
        "../scripts/splice.py"


rule dictionary_tables:
    input:
        **needs(metrics=all_metrics(), curves=all_curves()),
    output:
        **made(
            metrics=f"{R}/tables/dictionary_metrics.parquet",
            metrics_csv=f"{R}/tables/dictionary_metrics.csv",
            curves=f"{R}/tables/training_curves.parquet",
            curves_csv=f"{R}/tables/training_curves.csv",
        ),
    log:
        f"{R}/logs/dictionary_tables.log",
    params:
        cfg=member_cfg("no_settings"),
        code=code("dictionary_tables"),
    conda:
        "../../envs/actspace.yaml"
    localrule: True
    script:
        "../scripts/dictionary_tables.py"
