# What would run, before it runs: a table on the terminal. It needs the model alone, and makes no file but its log.


rule plan:
    input:
        **converted_weights(),
    log:
        f"{R}/logs/plan.log",
    localrule: True
    conda:
        "../../envs/actspace.yaml"
    threads: STUDY.compute.threads
    resources:
        **on_device(),
        mem_mb=growing(8000),
    params:
        cfg=member_cfg("model"),
        code=code("plan"),
    script:
        "../scripts/plan.py"
