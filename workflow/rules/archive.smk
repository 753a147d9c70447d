# What a finished study is kept or passed on as: one file that unpacks to a folder in which nothing is to be done.


rule archive:
    input:
        **needs(artifacts=archived_artifacts()),
        receipts=[*study_receipts(), f"{R}/report.html.json"],
        model=f"{R}/model.json",
        report=ancient(f"{R}/report.html"),
        manifest=f"{R}/manifest.json",
        given=given_configs(),
    output:
        **made(archive=f"{R}.zip"),
    log:
        f"{R}/logs/archive.log",
    benchmark:
        f"{R}/benchmarks/archive.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=archive_cfg,
        code=code("archive"),
    script:
        "../scripts/archive.py"
