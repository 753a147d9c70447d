# Perturbation sweeps: one job per experiment and site; then the statistics of all experiments.


rule perturbation:
    input:
        **model_inputs(experiment_model),
        **needs(
            pool=experiment_pool,
            bases=experiment_bases,
            tokens=experiment_tokens,
            dictionary=experiment_fit("dictionary"),
            clusters=experiment_fit("clusters"),
            probe=experiment_fit("probe"),
        ),
    output:
        **made(
            curves=f"{R}/perturbations/{{experiment}}/{{hook}}/curves.parquet",
            thresholds=f"{R}/perturbations/{{experiment}}/{{hook}}/thresholds.parquet",
        ),
    log:
        f"{R}/logs/perturbations/{{experiment}}/{{hook}}.log",
    conda:
        "../../envs/actspace.yaml"
    threads: STUDY.compute.threads
    resources:
        **on_device(),
        mem_mb=8000,
        runtime=240,
    params:
        cfg=stage_cfg("perturbation"),
        code=code("perturbation"),
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
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("statistics"),
        code=code("perturbation_tables"),
    script:
        "../scripts/perturbation_tables.py"
