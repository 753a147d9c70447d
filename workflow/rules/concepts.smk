# Concepts: phrases made from templates, and whether unions are sums and intensity is length at every layer of a capture of them.


rule phrases:
    input:
        **model_inputs(),
    output:
        **made(
            phrases=f"{R}/phrases/{{concept}}.parquet",
            tokens=f"{R}/tokens/{{concept}}/all-000.parquet",
            files=f"{R}/tokens/{{concept}}/all{shards.SUFFIX}",
        ),
    log:
        f"{R}/logs/phrases/{{concept}}.log",
    benchmark:
        f"{R}/benchmarks/phrases/{{concept}}.tsv"
    wildcard_constraints:
        concept=one_of(STUDY.concepts),
    group:
        "inputs"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("phrases"),
        code=code("phrases"),
    script:
        "../scripts/phrases.py"


rule concepts:
    input:
        **needs(activations=concept_activations, phrases=concept_phrases),
    output:
        **made(table=f"{R}/concepts/{{capture}}.parquet"),
    log:
        f"{R}/logs/concepts/{{capture}}.log",
    benchmark:
        f"{R}/benchmarks/concepts/{{capture}}.tsv"
    group:
        "measures"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("concepts"),
        code=code("concepts"),
    script:
        "../scripts/concepts.py"


rule concept_table:
    input:
        **needs(parts=concepts_of_kind),
    output:
        **made(
            table=f"{R}/tables/concept_{{kind}}.parquet",
            csv=f"{R}/tables/concept_{{kind}}.csv",
        ),
    log:
        f"{R}/logs/concept_table/{{kind}}.log",
    benchmark:
        f"{R}/benchmarks/concept_table/{{kind}}.tsv"
    wildcard_constraints:
        kind=one_of(stages.KINDS_OF_CONCEPTS),
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("no_settings"),
        code=code("latent_tables"),
    script:
        "../scripts/latent_tables.py"
