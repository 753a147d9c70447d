# Cached activations: one job per capture and shard reads all hooks of the capture in one pass; lists of the shards; then moments, and the surrogates made from them.


for name, settings in STUDY.captures.items():
    for capturing, hooks in hooks_at_once(name).items():

        rule:
            name:
                capturing
            input:
                **model_inputs(description_of(name)),
                **needs(
                    selfcheck=f"{R}/selfcheck.parquet",
                    tokens=f"{R}/tokens/{settings.tokens}/{{split}}{shards.SUFFIX}",
                ),
            output:
                **made(activations=[activations_of(name, hook, "{split}-{shard}") for hook in hooks]),
            log:
                f"{R}/logs/{capturing}/{{split}}-{{shard}}.log",
            benchmark:
                f"{R}/benchmarks/{capturing}/{{split}}-{{shard}}.tsv"
            conda:
                "../../envs/actspace.yaml"
            threads: STUDY.compute.threads
            resources:
                **on_device(),
                mem_mb=growing(8000),
                runtime=growing(240),
            params:
                cfg=member_cfg("activations", capture=name),
                code=code("activations"),
            script:
                "../scripts/activations.py"


rule shards:
    input:
        **needs(shards=shards_to_list),
    output:
        **made(files=f"{R}/activations/{{capture}}/{{hook}}/{{split}}{shards.SUFFIX}"),
    log:
        f"{R}/logs/shards/{{capture}}/{{hook}}/{{split}}.log",
    benchmark:
        f"{R}/benchmarks/shards/{{capture}}/{{hook}}/{{split}}.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("no_settings"),
        code=code("shards"),
    script:
        "../scripts/shards.py"


rule moments:
    input:
        **needs(activations=training_shards),
    output:
        **made(moments=f"{R}/moments/{{capture}}/{{hook}}.safetensors"),
    log:
        f"{R}/logs/moments/{{capture}}/{{hook}}.log",
    benchmark:
        f"{R}/benchmarks/moments/{{capture}}/{{hook}}.tsv"
    group:
        "moments"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("moments"),
        code=code("moments"),
    script:
        "../scripts/moments.py"


rule surrogate:
    input:
        **needs(
            activations=shards_of_split,
            moments=f"{R}/moments/{{capture}}/{{hook}}.safetensors",
        ),
    output:
        **made(activations=f"{R}/surrogates/{{null}}/{{capture}}/{{hook}}/{{split}}.parquet"),
    log:
        f"{R}/logs/surrogates/{{null}}/{{capture}}/{{hook}}/{{split}}.log",
    benchmark:
        f"{R}/benchmarks/surrogate/{{null}}/{{capture}}/{{hook}}/{{split}}.tsv"
    group:
        "moments"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("surrogate"),
        code=code("surrogate"),
    script:
        "../scripts/surrogate.py"


rule activation_table:
    input:
        **needs(moments=[moments_of(*place) for place in stages.hooks_with_moments(STUDY)]),
    output:
        **made(table=f"{R}/tables/activations.parquet", table_csv=f"{R}/tables/activations.csv"),
    log:
        f"{R}/logs/activation_table.log",
    benchmark:
        f"{R}/benchmarks/activation_table.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("activation_table"),
        code=code("activation_table"),
    script:
        "../scripts/activation_table.py"
