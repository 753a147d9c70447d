# Models, text and statements: from the hub, from packages of the Python index, from local files; and the token sequences cut from them.


def gguf_source():
    """The file that a model is converted from: the user's own, or the wheel that holds it."""
    source = STUDY.model.source
    if stages.converted_model(STUDY) is None:
        return {}
    return {"gguf": ancient(source.path)} if source.kind == "gguf" else needs(gguf=wheel_of(source))


def corpus_wheels():
    """Wheels that hold text; their content is pinned by sha256 in the config."""
    sources = STUDY.corpus.sources if STUDY.corpus else []
    return sorted({wheel_of(source) for source in sources if source.kind == "package"})


def statement_files(wildcards):
    """The CSV files of a set of statements; fetched ones count by their receipts, the user's own by themselves."""
    paths = [stages.local_copy(place) for place in STUDY.statements[wildcards.statements].files.values()]
    return [f"{path}.json" if path.startswith("resources/statements/") else path for path in paths]


def wheel_of(source):
    return f"resources/packages/{source.name}-{source.version}.whl"


rule package:
    output:
        **made(wheel="resources/packages/{package}.whl"),
    log:
        "resources/logs/package/{package}.log",
    params:
        cfg=stage_cfg("package"),
        code=code("package"),
    conda:
        "../../envs/actspace.yaml"
    retries: 2
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
    params:
        cfg=member_cfg("convert_model"),
        code=code("convert_model"),
    conda:
        "../../envs/actspace.yaml"
    threads: 2
    resources:
        mem_mb=8000,
    script:
        "../scripts/convert_model.py"


rule model:
    input:
        **converted_weights(),
    output:
        **made(model=f"{R}/model.json"),
    log:
        f"{R}/logs/model.log",
    params:
        cfg=member_cfg("model"),
        code=code("model"),
    conda:
        "../../envs/actspace.yaml"
    script:
        "../scripts/model.py"


rule selfcheck:
    input:
        **model_inputs(),
    output:
        **made(table=f"{R}/selfcheck.parquet"),
    log:
        f"{R}/logs/selfcheck.log",
    params:
        cfg=member_cfg("selfcheck"),
        code=code("selfcheck"),
    conda:
        "../../envs/actspace.yaml"
    threads: 2
    resources:
        **on_device(),
        mem_mb=8000,
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
            **made(tokens=[f"{R}/tokens/{name}/{part}.parquet" for part in stages.parts(STUDY, name)]),
        log:
            f"{R}/logs/tokens/{name}.log",
        params:
            cfg=member_cfg("tokens", tokens=name),
            code=code("tokens"),
        conda:
            "../../envs/actspace.yaml"
        threads: 2
        script:
            "../scripts/tokens.py"


rule statement_file:
    output:
        **made(csv="resources/statements/{name}"),
    wildcard_constraints:
        name="[^/]+[.]csv",
    log:
        "resources/logs/statements/{name}.log",
    params:
        cfg=stage_cfg("statement_file"),
        code=code("statement_file"),
    conda:
        "../../envs/actspace.yaml"
    retries: 2
    script:
        "../scripts/statement_file.py"


rule statements:
    input:
        **model_inputs(),
        files=statement_files,
    output:
        **made(statements=f"{R}/statements/{{statements}}.parquet", tokens=f"{R}/tokens/{{statements}}/all-000.parquet"),
    wildcard_constraints:
        statements=one_of(STUDY.statements),
    log:
        f"{R}/logs/statements/{{statements}}.log",
    params:
        cfg=stage_cfg("statements"),
        code=code("statements"),
    conda:
        "../../envs/actspace.yaml"
    script:
        "../scripts/statements.py"
