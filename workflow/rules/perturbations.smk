# Perturbation sweeps: one job per experiment at one site; then the statistics of all experiments.


def experiment_pool(wildcards):
    """Training rows at the site: targets of directions."""
    member = STUDY.perturbations[wildcards.experiment]
    return shards_of(member.capture, member.site, "train")


def experiment_bases(wildcards):
    """Held-out rows at the site: base activations."""
    member = STUDY.perturbations[wildcards.experiment]
    return shards_of(member.capture, member.site, "test")


def experiment_tokens(wildcards):
    return token_parts(STUDY.captures[STUDY.perturbations[wildcards.experiment].capture].tokens, "test")


def experiment_moments(wildcards):
    member = STUDY.perturbations[wildcards.experiment]
    return moments_of(member.capture, member.site)


def all_experiments(table):
    return [f"results/{STUDY.study}/perturbations/{name}/{table}.parquet" for name in STUDY.perturbations]


rule perturbation:
    input:
        **model_inputs(),
        **needs(pool=experiment_pool, bases=experiment_bases, tokens=experiment_tokens, moments=experiment_moments),
    output:
        **made(
            curves=f"{R}/perturbations/{{experiment}}/curves.parquet",
            thresholds=f"{R}/perturbations/{{experiment}}/thresholds.parquet",
        ),
    log:
        f"{R}/logs/perturbations/{{experiment}}.log",
    params:
        cfg=stage_cfg("perturbation"),
        code=code("perturbation"),
    conda:
        "../../envs/actspace.yaml"
    threads: 2
    resources:
        **on_device(),
        mem_mb=8000,
        runtime=240,
    script:
        "../scripts/perturbation.py"


rule perturbation_tables:
    input:
        **needs(curves=all_experiments("curves"), thresholds=all_experiments("thresholds")),
    output:
        **made(
            curves=f"{R}/tables/perturbation_curves.parquet",
            thresholds=f"{R}/tables/perturbation_thresholds.parquet",
            thresholds_csv=f"{R}/tables/perturbation_thresholds.csv",
            statistics=f"{R}/tables/perturbation_statistics.parquet",
            statistics_csv=f"{R}/tables/perturbation_statistics.csv",
            comparisons=f"{R}/tables/perturbation_comparisons.parquet",
            comparisons_csv=f"{R}/tables/perturbation_comparisons.csv",
        ),
    log:
        f"{R}/logs/perturbation_tables.log",
    params:
        cfg=member_cfg("statistics"),
        code=code("perturbation_tables"),
    conda:
        "../../envs/actspace.yaml"
    localrule: True
    script:
        "../scripts/perturbation_tables.py"
