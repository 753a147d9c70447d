# What the rules of each stage take as inputs, as functions of the wildcards; and every artifact of a study.


# sources


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
    paths = [stages.local_copy(place) for place in STUDY.statements[wildcards.statements].places.values()]
    return [f"{path}.json" if is_fetched(path) else path for path in paths]


def is_fetched(path):
    """Whether a CSV file of statements comes from an address."""
    return path.startswith("resources/statements/")


def fetched_statements():
    return receipts(sorted({*filter(is_fetched, stages.user_files(STUDY)["statements"])}))


def wheel_of(source):
    return f"resources/packages/{source.name}-{source.version}.whl"


# activations

ADDED_HOOKS = "ACTSPACE_ADDED_HOOKS"


def hooks_at_once(capture):
    """The hooks that one pass reads, by the name of its rule. Those that were added to a capture which is there already have a pass of their own.

    A hook counts as there if it has all its shards, made with the present settings; whether the token sequences changed is not looked at, and if so,
    there are two passes. Jobs on other machines are told what was found when the run began.
    """
    hooks = STUDY.captures[capture].hooks
    if ADDED_HOOKS not in os.environ:
        captures = {name: member.hooks for name, member in STUDY.captures.items()}
        found = {name: [hook for hook in captures[name] if not is_captured(name, hook)] for name in captures}
        os.environ[ADDED_HOOKS] = json.dumps(found)
    added = json.loads(os.environ[ADDED_HOOKS]).get(capture, [])
    old = [hook for hook in hooks if hook not in added]
    if not old or not added:
        return {f"activations_{capture}": hooks}
    return {f"activations_{capture}": old, f"added_activations_{capture}": added}


def is_captured(capture, hook):
    """Whether all shards of a hook are there, the first of them made with the present settings and code."""
    folder = Path(R, "activations", capture, hook)
    wanted = [f"{part}.parquet.json" for part in stages.parts(STUDY, STUDY.captures[capture].tokens)]
    if not folder.is_dir() or not {*wanted} <= {*os.listdir(folder)}:
        return False
    try:
        made = provenance.read_receipt(folder / wanted[0])
    except StudyError:
        return False  # the run says what is to be done
    return (made.get("cfg"), made.get("code")) == (member_cfg("activations", capture=capture), code("activations"))


def shards_to_list(wildcards):
    """The shards of one capture, hook and split."""
    split, capture, hook = wildcards.split, wildcards.capture, wildcards.hook
    numbers = stages.shards(STUDY, STUDY.captures[capture].tokens, split)
    return [activations_of(capture, hook, f"{split}-{number}") for number in numbers]


def training_shards(wildcards):
    return shards_of(wildcards.capture, wildcards.hook, "train")


def shards_of_split(wildcards):
    return shards_of(wildcards.capture, wildcards.hook, wildcards.split)


# dictionaries

FIT_KEYS = "{dictionaries}/{hook}/{data}/{fit}"
FIT = f"{R}/dictionaries/{FIT_KEYS}"
FIT_LOG = f"{R}/logs/dictionaries/{FIT_KEYS}"


def fit_data(split):
    """Rows of one split that a dictionary is fitted to or measured on: the capture's, or those of a surrogate of it."""

    def paths(wildcards):
        capture = stages.capture_of(STUDY.dictionaries[wildcards.dictionaries], wildcards.data)
        if wildcards.data in ("real", "untrained"):
            return shards_of(capture, wildcards.hook, split)
        return [f"{R}/surrogates/{wildcards.data}/{capture}/{wildcards.hook}/{split}.parquet"]

    return paths


def files_of_fit(path):
    """The artifacts of the fit with this path (without suffix)."""
    return [f"{Path(path).parent}/{file}" for file in stages.fit_files(Path(path).name)]


def measured_fit(wildcards):
    return files_of_fit(FIT.format(**{name: wildcards[name] for name in wildcards.keys()}))


def given_files(wildcards):
    """The files of an SAE that lies in a local folder."""
    chosen = stages.given(STUDY, wildcards.dictionaries, wildcards.hook, wildcards.fit)["given"]
    return [] if chosen["repo"] else [f"{chosen['folder']}/{name}" for name in (layout.CONFIG, layout.WEIGHTS)]


def fit_moments(wildcards):
    """Moments of the capture that a fit's data come from; a splice has no data, and runs the real fits."""
    data = wildcards.get("data", "real")
    return moments_of(stages.capture_of(STUDY.dictionaries[wildcards.dictionaries], data), wildcards.hook)


def centroids_of_fit(wildcards):
    """The fit that a read-out takes its centroids from."""
    return files_of_fit(FIT.format(**{**wildcards, "fit": stages.read_from(wildcards.fit)}))


def real_fits(wildcards):
    named = stages.spliced(STUDY.dictionaries[wildcards.dictionaries])
    paths = [FIT.format(**wildcards, data="real", fit=fit) for fit in named]
    return [file for path in paths for file in files_of_fit(path)]


def fits_to_match(wildcards):
    """All fits to one kind of data at one hook point."""
    members = fit_members(wildcards.dictionaries)
    here = (wildcards.get("data", "real"), wildcards.hook)
    paths = [path for data, hook, path in members if (data, hook) == here]
    return [file for path in paths for file in files_of_fit(path)]


def all_matches():
    """Tables of matches at every place where there are fits to match."""
    return [
        f"{R}/dictionaries/{name}/{hook}/{data}/matches.parquet"
        for name, member in STUDY.dictionaries.items()
        for hook in member.hooks
        for data in stages.kinds_of_data(member)
        if stages.matched(member, data)
    ]


def real_test_rows(wildcards):
    return shards_of(STUDY.dictionaries[wildcards.dictionaries].capture, wildcards.hook, "test")


def all_contexts():
    """Tables of top activating contexts at every place where there are latents that can be silent."""
    return [
        f"{R}/dictionaries/{name}/{hook}/contexts.parquet"
        for name, member in STUDY.dictionaries.items()
        if stages.selective(member)
        for hook in member.hooks
    ]


def dictionary_model(wildcards):
    return description_of(STUDY.dictionaries[wildcards.dictionaries].capture)


def splice_tokens(wildcards):
    return token_parts(
        STUDY.captures[STUDY.dictionaries[wildcards.dictionaries].capture].tokens,
        "test",
    )


def of_fits(kind):
    """A table about every fit: `metrics`, `density`, `preactivations` (rows of SAEs alone) or `draws`."""
    return [f"{path}.{kind}.parquet" for name in STUDY.dictionaries for _, _, path in fit_members(name)]


def all_metrics():
    """Tables of every fit, and of the fits that were spliced into the model."""
    spliced = [
        (name, hook) for name, member in STUDY.dictionaries.items() if member.splice_sequences for hook in member.hooks
    ]
    return of_fits("metrics") + [f"{R}/dictionaries/{name}/{hook}/splice.parquet" for name, hook in spliced]


def preactivations_of_saes():
    return [path for path in of_fits("preactivations") if stages.is_sae(Path(path).name)]


def all_curves():
    """Training curves of every SAE."""
    paths = [path for name in STUDY.dictionaries for _, _, path in fit_members(name)]
    return [f"{path}.curve.parquet" for path in paths if Path(path).name.split("-")[0] in stages.SAES]


def fit_members(dictionaries):
    """Data, hook and path (without suffix) of every fit of a dictionary study."""
    member = STUDY.dictionaries[dictionaries]
    return [
        (
            data,
            hook,
            FIT.format(
                dictionaries=dictionaries,
                hook=hook,
                data=data,
                fit=fit,
            ),
        )
        for hook in member.hooks
        for data in stages.kinds_of_data(member)
        for fit in stages.fits_to(member, data)
    ]


# probes

PROBE_TABLES = ("scores", "angles", "facts", "points", "arrows")


def probe_activations(wildcards):
    """The last token of every statement, at every hook of the capture, in the order of the config."""
    capture = STUDY.probes[wildcards.probes].capture
    return [statement_rows(capture, hook) for hook in STUDY.captures[capture].hooks]


def probe_statements(wildcards):
    return f"{R}/statements/{STUDY.captures[STUDY.probes[wildcards.probes].capture].tokens}.parquet"


def probe_results(table):
    return [f"{R}/probes/{name}/{table}.parquet" for name in STUDY.probes]


def causal_capture(wildcards):
    return STUDY.captures[STUDY.probes[STUDY.causal[wildcards.causal].probes].capture]


def causal_statements(wildcards):
    return f"{R}/statements/{causal_capture(wildcards).tokens}.parquet"


def causal_directions(wildcards):
    return f"{R}/probes/{STUDY.causal[wildcards.causal].probes}/directions.safetensors"


def causal_activations(wildcards):
    """The last token of every statement, at the hook points of an experiment, in the order of the config."""
    member = STUDY.causal[wildcards.causal]
    capture = STUDY.probes[member.probes].capture
    return [statement_rows(capture, hook) for hook in member.hooks]


def causal_model(wildcards):
    return description_of(STUDY.probes[STUDY.causal[wildcards.causal].probes].capture)


def all_causal():
    return [f"{R}/causal/{name}/runs.parquet" for name in STUDY.causal]


def cascade_activations(wildcards):
    """Activations at the hooks that the stages of cascades read, in the order of `stages.monitored_hooks`."""
    capture = STUDY.probes[wildcards.probes].capture
    named = stages.monitored_hooks(STUDY, wildcards.probes)
    return [statement_rows(capture, hook) for hook in named]


def all_cascades():
    return [f"{R}/probes/{name}/cascades.parquet" for name in stages.monitored(STUDY)]


# concepts


def concept_activations(wildcards):
    """The last token of every phrase, at every hook of the capture, in the order of the config."""
    return [statement_rows(wildcards.capture, hook) for hook in STUDY.captures[wildcards.capture].hooks]


def concept_phrases(wildcards):
    return f"{R}/phrases/{STUDY.captures[wildcards.capture].tokens}.parquet"


def concept_results(kind):
    return [f"{R}/concepts/{capture}.parquet" for capture in stages.concept_captures(STUDY, kind)]


def concepts_of_kind(wildcards):
    return concept_results(wildcards.kind)


# perturbations


def experiment_of(wildcards):
    """The member of whichever section the wildcard names."""
    sections = {"experiment": "perturbations", "optima": "optima", "planes": "planes", "regions": "regions"}
    key = next(key for key in sections if key in wildcards.keys())
    return getattr(STUDY, sections[key])[wildcards[key]]


def experiment_inputs():
    """What every experiment at a site takes: the model, held-out prompts, their activations, and training rows as a pool."""

    def capture(wildcards):
        return experiment_of(wildcards).capture

    return model_inputs(lambda wildcards: description_of(capture(wildcards))) | needs(
        tokens=lambda wildcards: token_parts(STUDY.captures[capture(wildcards)].tokens, "test"),
        bases=lambda wildcards: shards_of(capture(wildcards), wildcards.hook, "test"),
        pool=lambda wildcards: shards_of(capture(wildcards), wildcards.hook, "train"),
        moments=lambda wildcards: moments_of(capture(wildcards), wildcards.hook),
    )


def experiment_fit(source):
    """The fit that bases or directions of an experiment are made from, if there is any; or the directions of probes."""

    def paths(wildcards):
        used = stages.fits_used(STUDY, wildcards.experiment, wildcards.hook)
        return [f"{R}/{file}" for file in used.get(source, [])]

    return paths


def all_experiments(table, section="perturbations"):
    return [
        f"{R}/{section}/{name}/{site}/{table}.parquet"
        for name, member in getattr(STUDY, section).items()
        for site in member.sites
    ]


# regions, and the space between activations


def region_cells(wildcards):
    """The dictionary whose cells are looked up at the site, if there is one."""
    return [f"{R}/{file}" for file in stages.cells(STUDY, wildcards.regions, wildcards.hook)]


def spike_fits(wildcards):
    member = STUDY.spikes[wildcards.spikes]
    place = {"dictionaries": member.dictionaries, "hook": member.hook, "data": "real"}
    return [file for fit in member.fits for file in files_of_fit(FIT.format(**place, fit=fit))]


def spike_rows(wildcards):
    member = STUDY.spikes[wildcards.spikes]
    return shards_of(STUDY.dictionaries[member.dictionaries].capture, member.hook, "test")


def spike_moments(wildcards):
    member = STUDY.spikes[wildcards.spikes]
    return moments_of(STUDY.dictionaries[member.dictionaries].capture, member.hook)


def all_spikes():
    toy = [f"{R}/toy_superposition.parquet"] if STUDY.toy_superposition else []
    return [f"{R}/spikes/{name}.parquet" for name in STUDY.spikes] + toy


# report

TABLES = f"{R}/tables"
FIGURES = stages.figures(STUDY)


def study_tables():
    """The tables that claims, figures and the page read."""
    return [f"{TABLES}/{name}.parquet" for name in stages.tables(STUDY)]


def tables_of(part):
    """The tables that the figures of one part of the study are drawn from."""
    wanted = stages.PARTS[part][1]
    return [f"{TABLES}/{name}.parquet" for name in stages.tables(STUDY) if name in wanted]


def figures_of(part):
    return [figure for figure, of in FIGURES.items() if of == part]


def figure_files(figures, kinds=stages.FIGURE_FILES):
    return [f"{R}/figures/{figure}.{kind}" for figure in figures for kind in kinds]


def in_report(figure):
    """A figure as Snakemake's own report shows it, with the caption that was written from its tables."""
    (caption,) = figure_files([figure], ["rst"])
    section, _ = stages.PARTS[FIGURES[figure]]
    return report(
        f"{R}/figures/{figure}.svg",
        caption=str(Path(caption).absolute()),
        category=section,
        labels={"figure": figure},
    )


def visible_results():
    """What people open; all of it is a target, so that a file that was deleted is made again."""
    csv = [
        f"{TABLES}/{name}.csv"
        for name in [*stages.tables(STUDY), "claims", "untested_claims"]
        if name not in stages.ONLY_DRAWN
    ]
    return [f"{R}/report.html", f"{R}/manifest.json", *csv, *figure_files(FIGURES)]


def shard_files():
    """Token sequences, and activations of them: as many files as there are shards and hooks, which `list_files` names."""
    tokens = [
        f"{R}/tokens/{name}/{part}.parquet"
        for name in [*STUDY.tokens, *STUDY.statements, *STUDY.concepts]
        for part in stages.parts(STUDY, name)
    ]
    return tokens + [
        activations_of(name, hook, part)
        for name, capture in STUDY.captures.items()
        if capture.tokens in STUDY.tokens
        for hook in capture.hooks
        for part in stages.parts(STUDY, capture.tokens)
    ]


def list_files():
    """The lists of shards: of every token set and split, and of every capture of one, hook and split."""
    tokens = [(name, stages.SPLITS) for name in STUDY.tokens]
    tokens += [(name, ["all"]) for name in [*STUDY.statements, *STUDY.concepts]]
    return [
        *(token_parts(name, split)[0] for name, splits in tokens for split in splits),
        *(
            shards_of(name, hook, split)[0]
            for name, capture in STUDY.captures.items()
            if capture.tokens in STUDY.tokens
            for hook in capture.hooks
            for split in stages.SPLITS
        ),
    ]


def study_artifacts():
    """Every artifact of the study but the page and the manifest."""
    return [*derived_artifacts(), *list_files(), *shard_files()]


def study_receipts():
    """Receipts that tell of every artifact of the study but the page: those of shards are found by their lists."""
    return receipts([*derived_artifacts(), *list_files()])


def derived_artifacts():
    """Every artifact but shards and their lists, the page and the manifest."""
    fits = [(data, path) for name in STUDY.dictionaries for data, _, path in fit_members(name)]
    nulls = {
        (null, d.capture, hook)
        for d in STUDY.dictionaries.values()
        for null in d.nulls
        if stages.fits_to(d, null)
        for hook in d.hooks
    }
    return [
        f"{R}/model.json",
        *(f"{R}/checkpoints/{revision}.json" for revision in stages.revisions(STUDY)),
        f"{R}/selfcheck.parquet",
        *(f"{R}/statements/{name}.parquet" for name in STUDY.statements),
        *(f"{R}/phrases/{name}.parquet" for name in STUDY.concepts),
        *(
            statement_rows(name, hook)
            for name, capture in STUDY.captures.items()
            if capture.tokens not in STUDY.tokens
            for hook in capture.hooks
        ),
        *(path for kind in stages.KINDS_OF_CONCEPTS for path in concept_results(kind)),
        *(moments_of(*place) for place in stages.hooks_with_moments(STUDY)),
        *(
            f"{R}/surrogates/{null}/{capture}/{hook}/{split}.parquet"
            for null, capture, hook in sorted(nulls)
            for split in stages.SPLITS
        ),
        *(file for _, path in fits for file in files_of_fit(path)),
        *all_metrics(),
        *of_fits("density"),
        *of_fits("preactivations"),
        *of_fits("draws"),
        *all_matches(),
        *all_contexts(),
        *all_curves(),
        *(
            f"{R}/probes/{name}/{file}"
            for name in STUDY.probes
            for file in (*(f"{table}.parquet" for table in PROBE_TABLES), "directions.safetensors")
        ),
        *(f"{R}/causal/{name}/prompts.parquet" for name in STUDY.causal),
        *all_causal(),
        *all_cascades(),
        *all_experiments("curves"),
        *all_experiments("thresholds"),
        *all_experiments("triangles", "optima"),
        *all_experiments("subspaces", "optima"),
        *all_experiments("points", "planes"),
        *all_experiments("corners", "planes"),
        *all_experiments("walks", "regions"),
        *all_spikes(),
        *study_tables(),
        *(f"{TABLES}/{name}.csv" for name in stages.tables(STUDY) if name not in stages.ONLY_DRAWN),
        *(f"{TABLES}/{name}.{kind}" for name in ("claims", "untested_claims") for kind in ("parquet", "csv")),
        *figure_files(FIGURES),
    ]


# archive


def archived_artifacts():
    """The artifacts that an archive holds, and the page; the others are there as receipts alone."""
    named = [*study_artifacts(), f"{R}/report.html"]
    return [path for path in named if archive.is_kept(STUDY, path.removeprefix(f"{R}/"))]


def archive_cfg(wildcards):
    """The study, and which code this is; git is asked only if an archive is to be made."""
    return stages.canonical(stages.archive(STUDY) | {"code": checkout.version()})


def given_configs():
    """The config files of this run, in their order."""
    return [str(path) for path in workflow.configfiles]
