# Probes of truth: one job fits all probes at every layer of a capture of statements; and the toy whose answers are known.


def probe_activations(wildcards):
    """The last token of every statement, at every hook of the capture, in the order of the config."""
    capture = STUDY.probes[wildcards.probes].capture
    return [path for hook in STUDY.captures[capture].hooks for path in shards_of(capture, hook, "all")]


def probe_statements(wildcards):
    return f"results/{STUDY.study}/statements/{STUDY.captures[STUDY.probes[wildcards.probes].capture].tokens}.parquet"


def probe_results(table):
    return [f"results/{STUDY.study}/probes/{name}/{table}.parquet" for name in STUDY.probes]



rule probes:
    input:
        **needs(activations=probe_activations, statements=probe_statements),
    output:
        **made(
            scores=f"{R}/probes/{{probes}}/scores.parquet",
            angles=f"{R}/probes/{{probes}}/angles.parquet",
            directions=f"{R}/probes/{{probes}}/directions.safetensors",
        ),
    log:
        f"{R}/logs/probes/{{probes}}.log",
    params:
        cfg=stage_cfg("probes"),
        code=code("probes"),
    conda:
        "../../envs/actspace.yaml"
    threads: 2
    resources:
        mem_mb=4000,
    script:
        "../scripts/probes.py"


rule toy:
    output:
        **made(
            truth=f"{R}/tables/toy_truth.parquet",
            truth_csv=f"{R}/tables/toy_truth.csv",
            points=f"{R}/tables/toy_points.parquet",
            directions=f"{R}/tables/toy_directions.parquet",
        ),
    log:
        f"{R}/logs/toy.log",
    params:
        cfg=stage_cfg("toy"),
        code=code("toy"),
    conda:
        "../../envs/actspace.yaml"
    script:
        "../scripts/toy.py"


rule probe_tables:
    input:
        **needs(scores=probe_results("scores"), angles=probe_results("angles")),
    output:
        **made(
            scores=f"{R}/tables/probe_scores.parquet",
            scores_csv=f"{R}/tables/probe_scores.csv",
            summary=f"{R}/tables/probe_summary.parquet",
            summary_csv=f"{R}/tables/probe_summary.csv",
            angles=f"{R}/tables/probe_angles.parquet",
            angles_csv=f"{R}/tables/probe_angles.csv",
        ),
    log:
        f"{R}/logs/probe_tables.log",
    params:
        cfg=member_cfg("statistics"),
        code=code("probe_tables"),
    conda:
        "../../envs/actspace.yaml"
    localrule: True
    script:
        "../scripts/probe_tables.py"
