# What a finished study is kept or passed on as: one file that unpacks to a folder in which nothing is to be done.


rule archive:
    input:
        **needs(artifacts=archived_artifacts()),
        receipts=receipts([*study_artifacts(), f"results/{STUDY.study}/report.html"]),
        model=f"results/{STUDY.study}/model.json",
        report=ancient(f"results/{STUDY.study}/report.html"),
        manifest=f"results/{STUDY.study}/manifest.json",
        given=given_configs(),
    output:
        **made(archive=f"results/{STUDY.study}.zip"),
    log:
        f"results/{STUDY.study}/logs/archive.log",
    benchmark:
        f"results/{STUDY.study}/benchmarks/archive.tsv"
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    params:
        cfg=archive_cfg,
        code=code("archive"),
    script:
        "../scripts/archive.py"
