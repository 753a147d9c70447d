# Probes of truth: one job fits all probes at every layer of a capture of statements, one per experiment adds their directions; and the toy.


rule probes:
    input:
        **needs(activations=probe_activations, statements=probe_statements),
    output:
        **made(
            scores=f"{R}/probes/{{probes}}/scores.parquet",
            angles=f"{R}/probes/{{probes}}/angles.parquet",
            facts=f"{R}/probes/{{probes}}/facts.parquet",
            points=f"{R}/probes/{{probes}}/points.parquet",
            arrows=f"{R}/probes/{{probes}}/arrows.parquet",
            directions=f"{R}/probes/{{probes}}/directions.safetensors",
        ),
    log:
        f"{R}/logs/probes/{{probes}}.log",
    benchmark:
        f"{R}/benchmarks/probes/{{probes}}.tsv"
    conda:
        "../../envs/actspace.yaml"
    threads: STUDY.compute.threads
    resources:
        mem_mb=growing(4000),
    params:
        cfg=stage_cfg("probes"),
        code=code("probes"),
    script:
        "../scripts/probes.py"


rule cascades:
    input:
        **needs(
            activations=cascade_activations,
            statements=probe_statements,
            directions=f"{R}/probes/{{probes}}/directions.safetensors",
        ),
    output:
        **made(table=f"{R}/probes/{{probes}}/cascades.parquet"),
    log:
        f"{R}/logs/cascades/{{probes}}.log",
    benchmark:
        f"{R}/benchmarks/cascades/{{probes}}.tsv"
    group:
        "measures"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("cascades"),
        code=code("cascades"),
    script:
        "../scripts/cascades.py"


rule cascade_table:
    input:
        **needs(parts=all_cascades()),
    output:
        **made(
            table=f"{R}/tables/probe_cascades.parquet",
            csv=f"{R}/tables/probe_cascades.csv",
        ),
    log:
        f"{R}/logs/cascade_table.log",
    benchmark:
        f"{R}/benchmarks/cascade_table.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("no_settings"),
        code=code("latent_tables"),
    script:
        "../scripts/latent_tables.py"


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
    benchmark:
        f"{R}/benchmarks/toy.tsv"
    group:
        "toys"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("toy"),
        code=code("toy"),
    script:
        "../scripts/toy.py"


rule probe_tables:
    input:
        **needs(**{table: probe_results(table) for table in PROBE_TABLES}),
    output:
        **made(
            scores=f"{R}/tables/probe_scores.parquet",
            scores_csv=f"{R}/tables/probe_scores.csv",
            summary=f"{R}/tables/probe_summary.parquet",
            summary_csv=f"{R}/tables/probe_summary.csv",
            angles=f"{R}/tables/probe_angles.parquet",
            angles_csv=f"{R}/tables/probe_angles.csv",
            facts=f"{R}/tables/probe_facts.parquet",
            facts_csv=f"{R}/tables/probe_facts.csv",
            points=f"{R}/tables/probe_points.parquet",
            arrows=f"{R}/tables/probe_arrows.parquet",
        ),
    log:
        f"{R}/logs/probe_tables.log",
    benchmark:
        f"{R}/benchmarks/probe_tables.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("statistics"),
        code=code("probe_tables"),
    script:
        "../scripts/probe_tables.py"


# Asks before the model runs whether answers are single tokens.
rule causal_prompts:
    input:
        **model_inputs(causal_model),
        **needs(statements=causal_statements),
    output:
        **made(prompts=f"{R}/causal/{{causal}}/prompts.parquet"),
    log:
        f"{R}/logs/causal/{{causal}}.prompts.log",
    benchmark:
        f"{R}/benchmarks/causal_prompts/{{causal}}.tsv"
    priority: 1
    group:
        "inputs"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("causal_prompts"),
        code=code("causal_prompts"),
    script:
        "../scripts/causal_prompts.py"


rule causal:
    input:
        **model_inputs(causal_model),
        **needs(
            prompts=f"{R}/causal/{{causal}}/prompts.parquet",
            statements=causal_statements,
            directions=causal_directions,
            activations=causal_activations,
        ),
    output:
        **made(runs=f"{R}/causal/{{causal}}/runs.parquet"),
    log:
        f"{R}/logs/causal/{{causal}}.log",
    benchmark:
        f"{R}/benchmarks/causal/{{causal}}.tsv"
    conda:
        "../../envs/actspace.yaml"
    threads: STUDY.compute.threads
    resources:
        **on_device(),
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        cfg=stage_cfg("causal"),
        code=code("causal"),
    script:
        "../scripts/causal.py"


rule causal_tables:
    input:
        **needs(runs=all_causal()),
    output:
        **made(
            effects=f"{R}/tables/causal_effects.parquet",
            effects_csv=f"{R}/tables/causal_effects.csv",
        ),
    log:
        f"{R}/logs/causal_tables.log",
    benchmark:
        f"{R}/benchmarks/causal_tables.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("statistics"),
        code=code("causal_tables"),
    script:
        "../scripts/causal_tables.py"
