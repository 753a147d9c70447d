# What a study leaves behind: claims, figures, the page, and the manifest of every current file.

TABLES = f"results/{STUDY.study}/tables"
FIGURES = stages.figures(STUDY)


def study_tables():
    """The tables that claims, figures and the page read."""
    return [f"{TABLES}/{name}.parquet" for name in stages.tables(STUDY)]


def study_artifacts():
    """Every artifact of the study but the page and the manifest."""
    root = f"results/{STUDY.study}"
    captured = [(name, hook, part) for name, c in STUDY.captures.items() for hook in c.hooks for part in stages.parts(STUDY, c.tokens)]
    fits = [(data, path) for name in STUDY.dictionaries for data, _, path in fit_members(name)]
    nulls = {(null, d.capture, hook) for d in STUDY.dictionaries.values() for null in d.nulls for hook in d.hooks}
    return [
        f"{root}/model.json",
        f"{root}/selfcheck.parquet",
        *(f"{root}/tokens/{name}/{part}.parquet" for name in [*STUDY.tokens, *STUDY.statements] for part in stages.parts(STUDY, name)),
        *(f"{root}/statements/{name}.parquet" for name in STUDY.statements),
        *(f"{root}/activations/{name}/{hook}/{part}.parquet" for name, hook, part in captured),
        *(moments_of(*place) for place in sorted(stages.hooks_with_moments(STUDY))),
        *(f"{root}/surrogates/{null}/{capture}/{hook}/{split}.parquet" for null, capture, hook in sorted(nulls) for split in stages.SPLITS),
        *(f"{path}.safetensors" for _, path in fits),
        *all_metrics(),
        *all_curves(),
        *(f"{root}/probes/{name}/{file}" for name in STUDY.probes for file in ("scores.parquet", "angles.parquet", "directions.safetensors")),
        *(f"{root}/perturbations/{name}/{table}.parquet" for name in STUDY.perturbations for table in ("curves", "thresholds")),
        *study_tables(),
        *(f"{TABLES}/{name}.csv" for name in stages.tables(STUDY) if name not in stages.ONLY_DRAWN),
        *(f"{TABLES}/{name}.{kind}" for name in ("claims", "untested_claims") for kind in ("parquet", "csv")),
        *(f"{root}/figures/{figure}.svg" for figure in FIGURES),
    ]


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
    params:
        cfg=member_cfg("no_settings"),
        code=code("claims"),
    conda:
        "../../envs/actspace.yaml"
    localrule: True
    script:
        "../scripts/claims.py"


rule figures:
    input:
        **needs(tables=study_tables()),
    output:
        figures=[
            report(f"{R}/figures/{figure}.svg", caption=f"../report/{caption}.rst", category=section, labels={"figure": figure})
            for figure, (section, caption) in FIGURES.items()
        ],
        receipts=[f"{R}/figures/{figure}.svg.json" for figure in FIGURES],
    log:
        f"{R}/logs/figures.log",
    params:
        cfg=member_cfg("no_settings"),
        code=code("figures"),
    conda:
        "../../envs/actspace.yaml"
    script:
        "../scripts/figures.py"


rule report:
    input:
        **needs(
            tables=[*study_tables(), f"{TABLES}/claims.parquet", f"{TABLES}/untested_claims.parquet", f"results/{STUDY.study}/selfcheck.parquet"],
            figures=[f"results/{STUDY.study}/figures/{figure}.svg" for figure in FIGURES],
        ),
        receipts=receipts(study_artifacts()),
    output:
        **made(page=f"{R}/report.html"),
    log:
        f"{R}/logs/report.log",
    params:
        cfg=member_cfg("report"),
        code=code("report"),
    conda:
        "../../envs/actspace.yaml"
    localrule: True
    script:
        "../scripts/report.py"


rule manifest:
    input:
        receipts([*study_artifacts(), f"results/{STUDY.study}/report.html"]),
    output:
        manifest=f"{R}/manifest.json",
    log:
        f"{R}/logs/manifest.log",
    params:
        cfg=member_cfg("no_settings"),
        code=code("manifest"),
    conda:
        "../../envs/actspace.yaml"
    localrule: True
    script:
        "../scripts/manifest.py"
