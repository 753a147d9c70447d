# Perturbation sweeps, sensitivity optima and planes: one job per experiment and site; then the statistics of all of a kind.


rule perturbation:
    input:
        **experiment_inputs(),
        **needs(**{source: experiment_fit(source) for source in families.SOURCES}),
    output:
        **made(
            curves=f"{R}/perturbations/{{experiment}}/{{hook}}/curves.parquet",
            thresholds=f"{R}/perturbations/{{experiment}}/{{hook}}/thresholds.parquet",
        ),
    log:
        f"{R}/logs/perturbations/{{experiment}}/{{hook}}.log",
    benchmark:
        f"{R}/benchmarks/perturbation/{{experiment}}/{{hook}}.tsv"
    conda:
        "../../envs/actspace.yaml"
    threads: STUDY.compute.threads
    resources:
        **on_device(),
        mem_mb=growing(8000),
        runtime=growing(240),
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
    benchmark:
        f"{R}/benchmarks/perturbation_tables.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("statistics"),
        code=code("perturbation_tables"),
    script:
        "../scripts/perturbation_tables.py"


rule optima:
    input:
        **experiment_inputs(),
    output:
        **made(
            triangles=f"{R}/optima/{{optima}}/{{hook}}/triangles.parquet",
            subspaces=f"{R}/optima/{{optima}}/{{hook}}/subspaces.parquet",
        ),
    log:
        f"{R}/logs/optima/{{optima}}/{{hook}}.log",
    benchmark:
        f"{R}/benchmarks/optima/{{optima}}/{{hook}}.tsv"
    conda:
        "../../envs/actspace.yaml"
    threads: STUDY.compute.threads
    resources:
        **on_device(),
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        cfg=stage_cfg("optima"),
        code=code("optima"),
    script:
        "../scripts/optima.py"


rule optima_tables:
    input:
        **needs(triangles=all_experiments("triangles", "optima"), subspaces=all_experiments("subspaces", "optima")),
    output:
        **made(
            triangles=f"{R}/tables/triangles.parquet",
            subspaces=f"{R}/tables/subspaces.parquet",
            subspaces_csv=f"{R}/tables/subspaces.csv",
            statistics=f"{R}/tables/optima_statistics.parquet",
            statistics_csv=f"{R}/tables/optima_statistics.csv",
        ),
    log:
        f"{R}/logs/optima_tables.log",
    benchmark:
        f"{R}/benchmarks/optima_tables.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("statistics"),
        code=code("optima_tables"),
    script:
        "../scripts/optima_tables.py"


rule planes:
    input:
        **experiment_inputs(),
    output:
        **made(
            points=f"{R}/planes/{{planes}}/{{hook}}/points.parquet",
            corners=f"{R}/planes/{{planes}}/{{hook}}/corners.parquet",
        ),
    log:
        f"{R}/logs/planes/{{planes}}/{{hook}}.log",
    benchmark:
        f"{R}/benchmarks/planes/{{planes}}/{{hook}}.tsv"
    conda:
        "../../envs/actspace.yaml"
    threads: STUDY.compute.threads
    resources:
        **on_device(),
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        cfg=stage_cfg("planes"),
        code=code("planes"),
    script:
        "../scripts/planes.py"


rule plane_tables:
    input:
        **needs(points=all_experiments("points", "planes"), corners=all_experiments("corners", "planes")),
    output:
        **made(
            points=f"{R}/tables/planes.parquet",
            corners=f"{R}/tables/plane_corners.parquet",
            corners_csv=f"{R}/tables/plane_corners.csv",
            statistics=f"{R}/tables/plane_statistics.parquet",
            statistics_csv=f"{R}/tables/plane_statistics.csv",
        ),
    log:
        f"{R}/logs/plane_tables.log",
    benchmark:
        f"{R}/benchmarks/plane_tables.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("statistics"),
        code=code("plane_tables"),
    script:
        "../scripts/plane_tables.py"
