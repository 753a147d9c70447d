# What a study leaves behind: claims, figures, the page, and the manifest of every current file.


rule claims:
    input:
        **needs(tables=study_tables()),
    output:
        **made(
            claims=f"{R}/tables/claims.parquet",
            claims_csv=f"{R}/tables/claims.csv",
            untested=f"{R}/tables/untested_claims.parquet",
            untested_csv=f"{R}/tables/untested_claims.csv",
        ),
    log:
        f"{R}/logs/claims.log",
    benchmark:
        f"{R}/benchmarks/claims.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("no_settings"),
        code=code("claims"),
    script:
        "../scripts/claims.py"


for part in dict.fromkeys(FIGURES.values()):

    rule:
        name:
            f"figures_{part}"
        input:
            **needs(tables=tables_of(part)),
        output:
            **made(
                svg=[in_report(figure) for figure in figures_of(part)],
                others=figure_files(figures_of(part), stages.FIGURE_FILES[1:]),
            ),
        log:
            f"{R}/logs/figures/{part}.log",
        benchmark:
            f"{R}/benchmarks/figures/{part}.tsv"
        group:
            "figures"
        conda:
            "../../envs/actspace.yaml"
        params:
            cfg=member_cfg("no_settings"),
            code=code("figures"),
        script:
            "../scripts/figures.py"


rule report:
    input:
        **needs(
            tables=[
                *study_tables(),
                f"{TABLES}/claims.parquet",
                f"{TABLES}/untested_claims.parquet",
                f"{R}/selfcheck.parquet",
            ],
            figures=figure_files(FIGURES, stages.FIGURE_FILES[:1]),
        ),
        receipts=study_receipts(),
    output:
        **made(page=f"{R}/report.html"),
    log:
        f"{R}/logs/report.log",
    benchmark:
        f"{R}/benchmarks/report.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("report"),
        code=code("report"),
    script:
        "../scripts/report.py"


rule manifest:
    input:
        [*study_receipts(), f"{R}/report.html.json"],
    output:
        manifest=f"{R}/manifest.json",
    log:
        f"{R}/logs/manifest.log",
    benchmark:
        f"{R}/benchmarks/manifest.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=member_cfg("no_settings"),
        code=code("manifest"),
    script:
        "../scripts/manifest.py"
