# Activation regions: one job per study of them and site. The space between activations: one job per study, and the toy.


rule regions:
    input:
        **experiment_inputs(),
        **needs(cells=region_cells),
    output:
        **made(table=f"{R}/regions/{{regions}}/{{hook}}/walks.parquet"),
    log:
        f"{R}/logs/regions/{{regions}}/{{hook}}.log",
    benchmark:
        f"{R}/benchmarks/regions/{{regions}}/{{hook}}.tsv"
    conda:
        "../../envs/actspace.yaml"
    threads: STUDY.compute.threads
    resources:
        **on_device(),
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        cfg=stage_cfg("regions"),
        code=code("regions"),
    script:
        "../scripts/regions.py"


rule region_tables:
    input:
        **needs(regions=all_experiments("walks", "regions")),
    output:
        **made(
            regions=f"{R}/tables/regions.parquet",
            statistics=f"{R}/tables/region_statistics.parquet",
            statistics_csv=f"{R}/tables/region_statistics.csv",
        ),
    log:
        f"{R}/logs/region_tables.log",
    benchmark:
        f"{R}/benchmarks/region_tables.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("statistics"),
        code=code("region_tables"),
    script:
        "../scripts/region_tables.py"


rule spikes:
    input:
        **needs(fits=spike_fits, activations=spike_rows, moments=spike_moments),
    output:
        **made(table=f"{R}/spikes/{{spikes}}.parquet"),
    log:
        f"{R}/logs/spikes/{{spikes}}.log",
    benchmark:
        f"{R}/benchmarks/spikes/{{spikes}}.tsv"
    group:
        "measures"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("spikes"),
        code=code("spikes"),
    script:
        "../scripts/spikes.py"


rule toy_superposition:
    output:
        **made(table=f"{R}/toy_superposition.parquet"),
    log:
        f"{R}/logs/toy_superposition.log",
    benchmark:
        f"{R}/benchmarks/toy_superposition.tsv"
    group:
        "toys"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("toy_superposition"),
        code=code("toy_superposition"),
    script:
        "../scripts/toy_superposition.py"


rule spike_tables:
    input:
        **needs(spikes=all_spikes()),
    output:
        **made(
            spikes=f"{R}/tables/spikes.parquet",
            statistics=f"{R}/tables/spike_statistics.parquet",
            statistics_csv=f"{R}/tables/spike_statistics.csv",
        ),
    log:
        f"{R}/logs/spike_tables.log",
    benchmark:
        f"{R}/benchmarks/spike_tables.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("statistics"),
        code=code("spike_tables"),
    script:
        "../scripts/spike_tables.py"
