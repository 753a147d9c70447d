# Dictionaries: one target per fit; the same fits on real data and on nulls; all measured on held-out documents.


rule kmeans:
    input:
        **needs(activations=fit_data("train"), moments=fit_moments),
    output:
        **made(fit=f"{FIT}.safetensors"),
    log:
        f"{FIT_LOG}.log",
    benchmark:
        f"{R}/benchmarks/kmeans/{FIT_KEYS}.tsv"
    wildcard_constraints:
        fit="(pca_)?kmeans(_spherical)?-[^/]+",
    conda:
        "../../envs/actspace.yaml"
    threads: STUDY.compute.threads
    resources:
        **on_device(),
        mem_mb=growing(12000),
        runtime=growing(240),
    params:
        cfg=stage_cfg("fit"),
        code=code("kmeans"),
    script:
        "../scripts/kmeans.py"


rule kmeans_read_out:
    input:
        **needs(fit=centroids_of_fit, moments=fit_moments),
    output:
        **made(fit=f"{FIT}.safetensors"),
    log:
        f"{FIT_LOG}.log",
    benchmark:
        f"{R}/benchmarks/kmeans_read_out/{FIT_KEYS}.tsv"
    wildcard_constraints:
        fit="(pca_)?kmeans_(unit|nearest)-[^/]+",
    group:
        "fits"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("fit"),
        code=code("kmeans_read_out"),
    script:
        "../scripts/kmeans_read_out.py"


rule null_dictionary:
    input:
        **needs(activations=fit_data("train"), moments=fit_moments),
    output:
        **made(fit=f"{FIT}.safetensors"),
    log:
        f"{FIT_LOG}.log",
    benchmark:
        f"{R}/benchmarks/null_dictionary/{FIT_KEYS}.tsv"
    wildcard_constraints:
        fit="(random_points-|token_identity)[^/]*",
    group:
        "fits"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("fit"),
        code=code("null_dictionary"),
    script:
        "../scripts/null_dictionary.py"


rule random_directions:
    input:
        **needs(activations=fit_data("train"), moments=fit_moments),
    output:
        **made(fit=f"{FIT}/sae_weights.safetensors", cfg=f"{FIT}/cfg.json"),
    log:
        f"{FIT_LOG}.log",
    benchmark:
        f"{R}/benchmarks/random_directions/{FIT_KEYS}.tsv"
    wildcard_constraints:
        fit="random_directions-[^/]+",
    group:
        "fits"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("fit"),
        code=code("random_directions"),
    script:
        "../scripts/random_directions.py"


rule pca:
    input:
        **needs(activations=fit_data("train"), moments=fit_moments),
    output:
        **made(fit=f"{FIT}.safetensors"),
    log:
        f"{FIT_LOG}.log",
    benchmark:
        f"{R}/benchmarks/pca/{FIT_KEYS}.tsv"
    wildcard_constraints:
        fit="pca-[^/]+",
    group:
        "fits"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("fit"),
        code=code("pca"),
    script:
        "../scripts/pca.py"


rule sae:
    input:
        **needs(activations=fit_data("train"), moments=fit_moments),
    output:
        **made(
            fit=f"{FIT}/sae_weights.safetensors",
            cfg=f"{FIT}/cfg.json",
            curve=f"{FIT}.curve.parquet",
        ),
    log:
        f"{FIT_LOG}.log",
    benchmark:
        f"{R}/benchmarks/sae/{FIT_KEYS}.tsv"
    wildcard_constraints:
        fit=f"({one_of(stages.SAES)})-[^/]+",
    conda:
        "../../envs/actspace.yaml"
    threads: STUDY.compute.threads
    resources:
        **on_device(),
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        cfg=stage_cfg("fit"),
        code=code("sae"),
    script:
        "../scripts/sae.py"


rule given:
    input:
        **needs(model=dictionary_model),
        files=given_files,
    output:
        **made(fit=f"{FIT}/sae_weights.safetensors", cfg=f"{FIT}/cfg.json"),
    log:
        f"{FIT_LOG}.log",
    benchmark:
        f"{R}/benchmarks/given/{FIT_KEYS}.tsv"
    wildcard_constraints:
        data="real",
        fit=f"{stages.GIVEN}-[^/]+",
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("given"),
        code=code("given"),
    script:
        "../scripts/given.py"


rule dictionary_metrics:
    input:
        **needs(
            fit=measured_fit,
            activations=fit_data("test"),
            training=fit_data("train"),
            moments=fit_moments,
        ),
    output:
        **made(
            metrics=f"{FIT}.metrics.parquet",
            density=f"{FIT}.density.parquet",
            preactivations=f"{FIT}.preactivations.parquet",
            draws=f"{FIT}.draws.parquet",
        ),
    log:
        f"{FIT_LOG}.metrics.log",
    benchmark:
        f"{R}/benchmarks/dictionary_metrics/{FIT_KEYS}.tsv"
    group:
        "fits"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("dictionary_metrics"),
        code=code("dictionary_metrics"),
    script:
        "../scripts/dictionary_metrics.py"


rule rate_distortion:
    input:
        **needs(moments=[moments_of(**place) for place in stages.rate_distortion(STUDY)["places"]]),
    output:
        **made(
            table=f"{R}/tables/rate_distortion.parquet",
            table_csv=f"{R}/tables/rate_distortion.csv",
        ),
    log:
        f"{R}/logs/rate_distortion.log",
    benchmark:
        f"{R}/benchmarks/rate_distortion.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("rate_distortion"),
        code=code("rate_distortion"),
    script:
        "../scripts/rate_distortion.py"


rule splice:
    input:
        **model_inputs(dictionary_model),
        **needs(fits=real_fits, tokens=splice_tokens, moments=fit_moments),
    output:
        **made(table=f"{R}/dictionaries/{{dictionaries}}/{{hook}}/splice.parquet"),
    log:
        f"{R}/logs/dictionaries/{{dictionaries}}/{{hook}}/splice.log",
    benchmark:
        f"{R}/benchmarks/splice/{{dictionaries}}/{{hook}}.tsv"
    conda:
        "../../envs/actspace.yaml"
    threads: STUDY.compute.threads
    resources:
        **on_device(),
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        cfg=stage_cfg("splice"),
        code=code("splice"),
    script:
        "../scripts/splice.py"


rule dictionary_tables:
    input:
        **needs(
            metrics=all_metrics(),
            densities=of_fits("density"),
            preactivations=preactivations_of_saes(),
            curves=all_curves(),
        ),
    output:
        **made(
            densities=f"{R}/tables/dictionary_densities.parquet",
            preactivations=f"{R}/tables/dictionary_preactivations.parquet",
            metrics=f"{R}/tables/dictionary_metrics.parquet",
            metrics_csv=f"{R}/tables/dictionary_metrics.csv",
            curves=f"{R}/tables/training_curves.parquet",
            curves_csv=f"{R}/tables/training_curves.csv",
        ),
    log:
        f"{R}/logs/dictionary_tables.log",
    benchmark:
        f"{R}/benchmarks/dictionary_tables.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("no_settings"),
        code=code("dictionary_tables"),
    script:
        "../scripts/dictionary_tables.py"


rule structure:
    input:
        **needs(metrics=of_fits("metrics"), draws=of_fits("draws")),
    output:
        **made(
            table=f"{R}/tables/dictionary_structure.parquet",
            table_csv=f"{R}/tables/dictionary_structure.csv",
        ),
    log:
        f"{R}/logs/structure.log",
    benchmark:
        f"{R}/benchmarks/structure.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("no_settings"),
        code=code("structure"),
    script:
        "../scripts/structure.py"


rule matches:
    input:
        **needs(fits=fits_to_match),
    output:
        **made(table=f"{R}/dictionaries/{{dictionaries}}/{{hook}}/{{data}}/matches.parquet"),
    log:
        f"{R}/logs/dictionaries/{{dictionaries}}/{{hook}}/{{data}}/matches.log",
    benchmark:
        f"{R}/benchmarks/matches/{{dictionaries}}/{{hook}}/{{data}}.tsv"
    group:
        "fits"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("matches"),
        code=code("matches"),
    script:
        "../scripts/matches.py"


rule match_table:
    input:
        **needs(parts=all_matches()),
    output:
        **made(
            table=f"{R}/tables/dictionary_matches.parquet",
            csv=f"{R}/tables/dictionary_matches.csv",
        ),
    log:
        f"{R}/logs/match_table.log",
    benchmark:
        f"{R}/benchmarks/match_table.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("no_settings"),
        code=code("latent_tables"),
    script:
        "../scripts/latent_tables.py"


rule top_contexts:
    input:
        **model_inputs(dictionary_model),
        **needs(
            fits=real_fits,
            activations=real_test_rows,
            tokens=splice_tokens,
            moments=fit_moments,
        ),
    output:
        **made(table=f"{R}/dictionaries/{{dictionaries}}/{{hook}}/contexts.parquet"),
    log:
        f"{R}/logs/dictionaries/{{dictionaries}}/{{hook}}/contexts.log",
    benchmark:
        f"{R}/benchmarks/top_contexts/{{dictionaries}}/{{hook}}.tsv"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("top_contexts"),
        code=code("top_contexts"),
    script:
        "../scripts/top_contexts.py"


rule context_table:
    input:
        **needs(parts=all_contexts()),
    output:
        **made(
            table=f"{R}/tables/top_contexts.parquet",
            csv=f"{R}/tables/top_contexts.csv",
        ),
    log:
        f"{R}/logs/context_table.log",
    benchmark:
        f"{R}/benchmarks/context_table.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("no_settings"),
        code=code("latent_tables"),
    script:
        "../scripts/latent_tables.py"
