"""Every fault test fails when its guard is taken away: each is run on a copy of the project in which one line is another.

`GUARDS` is the table to read: which test, which file, which line, and what the test then says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny import COPIED, ROOT

FILES, HUB, SOURCES = "unit/test_faults_files.py", "unit/test_faults_hub.py", "unit/test_sources.py"
RUNS, RESUME = "workflow/test_faults.py", "workflow/test_resume.py"
PACKAGE = "workflow/actspace"
NO_ERROR, HALF = "DID NOT RAISE", "half a file looks whole"


class Guard(NamedTuple):
    """A test, the text that guards against its fault, what stands there instead, and what the test then says."""

    test: str
    file: str
    guard: str
    without: str
    says: str


CUT = f"{FILES}::test_a_file_that_has_its_name_outlives_a_power_cut"
KILLED = f"{FILES}::test_a_file_whose_writer_is_killed_has_no_name_and_the_next_one_is_whole"
FULL = f"{FILES}::test_a_full_disk_is_one_line_and_leaves_nothing_whatever_is_written"
CLOSED = f"{FILES}::test_what_may_not_be_written_is_one_line_and_stays_as_it_is"
SHARDS = f"{FILES}::test_a_run_names_shards_behind_lists_that_are_not_as_they_were"
CHANGED = f"{FILES}::test_a_number_that_was_changed_inside_a_file_is_never_read"
MEMORY = f"{FILES}::test_memory_that_runs_out_is_one_line_and_the_log_has_the_place"
CACHED = f"{HUB}::test_a_model_that_is_damaged_in_the_cache_is_named_and_fetched_again"
JOB = f"{RUNS}::test_a_job_that_is_killed_leaves_nothing_and_the_run_says_whose_it_was_and_that_memory_may_be_short"

GUARDS = [
    # a power cut
    Guard(f"{CUT}[table.parquet]", f"{PACKAGE}/provenance.py", "            sync(temporary)\n", "", HALF),
    Guard(f"{CUT}[manifest.json]", f"{PACKAGE}/manifest.py", "provenance.write_text(path, ", "path.write_text(", HALF),
    Guard(f"{CUT}[train-000.parquet]", f"{PACKAGE}/provenance.py", "            os.fsync(self._file)\n", "", HALF),
    Guard(
        f"{FILES}::test_a_job_refuses_an_input_that_was_cut_short",
        f"{PACKAGE}/provenance.py",
        '        check_size(path.removesuffix(".json"))\n',
        "        pass\n",
        NO_ERROR,
    ),
    Guard(
        f"{RUNS}::test_an_input_that_was_cut_short_stops_a_run_before_its_first_job_which_names_it",
        "workflow/rules/common.smk",
        "        runs.check_inputs({path for job in jobs for path in job.input} - {*making})\n",
        "",
        "is not what its receipt says",  # which the job says that reads it
    ),
    Guard(
        f"{SHARDS}[cut short]",
        f"{PACKAGE}/runs.py",
        "for file in list_of if _is_damaged(file)]",
        "for file in ()]",
        NO_ERROR,
    ),
    Guard(
        f"{SHARDS}[missing]",
        f"{PACKAGE}/runs.py",
        "if found := damaged or missing:",
        "if found := damaged:",
        NO_ERROR,
    ),
    Guard(
        f"{RUNS}::test_activations_that_an_archive_left_out_are_captured_again_where_a_stage_needs_them",
        "workflow/rules/activations.smk",
        "**needs(shards=shards_to_list)",
        "shards=[], receipts=lambda wildcards: receipts(shards_to_list(wildcards))",
        "assert 1 == 0",
    ),
    # kills
    Guard(f"{KILLED}[table.csv]", f"{PACKAGE}/provenance.py", "scratch / path.name", "path", HALF),
    Guard(
        f"{KILLED}[train-000.parquet]",
        f"{PACKAGE}/provenance.py",
        'path.with_name(f".{path.name}.partial")',
        "path",
        HALF,
    ),
    Guard(f"{JOB}[kill-job]", "workflow/Snakefile", "onerror:\n    print(", "onerror:\n    str(", "not enough values"),
    Guard(f"{JOB}[starve]", f"{PACKAGE}/runs.py", r"died with <Signals\.SIGKILL: 9>|", "", "not enough values"),
    Guard(
        f"{FILES}::test_what_was_killed_is_told_by_rule_unless_it_was_tried_again",
        f"{PACKAGE}/runs.py",
        "            by_cluster.pop(again, None)\n",
        "",
        "more memory is needed",
    ),
    Guard(
        f"{RUNS}::test_stages_that_are_killed_alone_or_with_snakemake_end_in_the_same_tables[kill-job-0]",
        f"{PACKAGE}/provenance.py",
        'self._temporary.open("wb"',
        'self._temporary.open("xb"',
        "the same command did not go on",
    ),
    Guard(
        f"{RUNS}::test_stages_that_are_killed_alone_or_with_snakemake_end_in_the_same_tables[kill-run-1]",
        "profiles/default/profile.yaml",
        "rerun-incomplete: true",
        "rerun-incomplete: false",
        "the same command did not go on",
    ),
    # memory, disks
    Guard(
        f"{FULL}[test-000.parquet]",
        f"{PACKAGE}/tokens.py",
        "            self._open[split][1].finish(self._made_by)\n            del self._open[split]",
        "            self._open.pop(split)[1].finish(self._made_by)",
        "partial",
    ),
    Guard(
        f"{MEMORY}[import numpy; numpy.ones(10**15)]",
        f"{PACKAGE}/jobs.py",
        "isinstance(error, MemoryError) or ",
        "",
        "too many values",
    ),
    Guard(
        f"{MEMORY}[import torch; torch.ones(10**14)]",
        f"{PACKAGE}/jobs.py",
        """ or "can't allocate memory" in str(error)""",
        "",
        "too many values",
    ),
    Guard(f"{FULL}[table.parquet]", f"{PACKAGE}/provenance.py", "(errno.ENOSPC, errno.EDQUOT)", "()", "OSError"),
    Guard(
        f"{FULL}[moments.safetensors]",
        f"{PACKAGE}/provenance.py",
        "int(told[1]) if told",
        "0 if told",
        "SafetensorError",
    ),
    Guard(
        f"{CLOSED}[table.csv-the file]",
        f"{PACKAGE}/provenance.py",
        "(errno.EACCES, errno.EPERM, errno.EROFS)",
        "()",
        "PermissionError",
    ),
    Guard(
        f"{FILES}::test_a_run_names_the_folders_that_it_may_not_write_in",
        f"{PACKAGE}/runs.py",
        "if not os.access(folder, os.W_OK)",
        "if not folder",
        NO_ERROR,
    ),
    # damage
    Guard(
        f"{CHANGED}[a table]",
        f"{PACKAGE}/tables.py",
        "read_table(path, columns=columns, page_checksum_verification=True)",
        "read_table(path, columns=columns)",
        NO_ERROR,
    ),
    Guard(
        f"{CHANGED}[a table in pieces]",
        f"{PACKAGE}/tables.py",
        "ParquetFile(path, page_checksum_verification=True)",
        "ParquetFile(path)",
        NO_ERROR,
    ),
    Guard(
        f"{CHANGED}[activations]",
        f"{PACKAGE}/activations/store.py",
        "if _sum(found[name]) != written[name]",
        "if False",
        NO_ERROR,
    ),
    Guard(
        f"{CHANGED}[shuffled activations]",
        f"{PACKAGE}/activations/store.py",
        "if _sum(found[name]) != written[name]",
        "if False",
        NO_ERROR,
    ),
    Guard(f"{CHANGED}[moments]", f"{PACKAGE}/activations/moments.py", "    provenance.check(path)\n", "", NO_ERROR),
    Guard(f"{CHANGED}[k-means]", f"{PACKAGE}/dictionaries/base.py", "    provenance.check(path)\n", "", NO_ERROR),
    Guard(f"{CHANGED}[an SAE]", f"{PACKAGE}/dictionaries/saelens.py", "    provenance.check(path)\n", "", NO_ERROR),
    Guard(
        "unit/test_models.py::test_converted_weights_that_were_changed_are_not_read",
        f"{PACKAGE}/models.py",
        "        provenance.check(folder / name)\n",
        "        pass\n",
        NO_ERROR,
    ),
    Guard(f"{CHANGED}[probes]", f"{PACKAGE}/probes/linear.py", "    provenance.check(path)\n", "", NO_ERROR),
    # the clock, two runs
    Guard(
        f"{FILES}::test_a_run_names_inputs_from_the_future",
        f"{PACKAGE}/runs.py",
        "time.time() + CLOCKS_DIFFER_S",
        "float('inf')",
        NO_ERROR,
    ),
    Guard(
        f"{RUNS}::test_a_clock_that_was_set_back_stops_a_run_before_its_first_job",
        f"{PACKAGE}/runs.py",
        "time.time() + CLOCKS_DIFFER_S",
        "float('inf')",
        "not enough values",
    ),
    Guard(
        f"{RUNS}::test_a_second_run_in_the_same_folder_is_refused_and_the_first_is_not_disturbed",
        "profiles/default/profile.yaml",
        "rerun-incomplete: true\n",
        "rerun-incomplete: true\nnolock: true\n",
        "two runs wrote the same files",
    ),
    # the hub
    Guard(
        f"{CACHED}[model.safetensors-cut_short]",
        f"{PACKAGE}/models.py",
        "        sources.check_cached(folder / name, found)\n",
        "        pass\n",
        NO_ERROR,
    ),
    Guard(
        f"{CACHED}[config.json-change_inside]",
        f"{PACKAGE}/sources.py",
        "            check_cached(file)\n",
        "            pass\n",
        NO_ERROR,
    ),
    Guard(
        f"{HUB}::test_a_model_of_other_bytes_than_the_hub_lists_is_refused",
        f"{PACKAGE}/sources.py",
        'if file.parent.name != "blobs":\n        return',
        "if file:\n        return",
        NO_ERROR,
    ),
    Guard(
        f"{HUB}::test_a_data_set_of_other_bytes_than_the_hub_lists_is_refused",
        f"{PACKAGE}/sources.py",
        "    check_cached(path)\n",
        "",
        NO_ERROR,
    ),
    Guard(
        f"{HUB}::test_a_download_that_breaks_off_is_no_snapshot_and_goes_on",
        f"{PACKAGE}/sources.py",
        "    with _explained(repo, revision, repo_type):\n        folder = ",
        "    if repo:\n        folder = ",
        "IncompleteSnapshotError",
    ),
    Guard(
        f"{HUB}::test_a_hub_that_answers_slowly_gives_the_same_model",
        f"{PACKAGE}/sources.py",
        "timeout=HUB_TIMEOUT_S)\n        return",
        "timeout=0.1)\n        return",
        "cannot be reached",
    ),
    Guard(
        f"{HUB}::test_a_file_of_statements_that_breaks_off_is_no_file",
        f"{PACKAGE}/sources.py",
        "if promised is not None and",
        "if False and",
        NO_ERROR,
    ),
    Guard(
        f"{SOURCES}::test_a_hub_in_trouble_is_reported_at_once[500]",
        f"{PACKAGE}/sources.py",
        "status_code >= 500 or",
        "status_code >= 600 or",
        "Regex pattern did not match",
    ),
    Guard(
        f"{SOURCES}::test_fetch_package_refuses_a_wheel_with_another_hash",
        f"{PACKAGE}/sources.py",
        '        check_sha256(wheel, sha256, f"package {name}=={version}")\n',
        "",
        NO_ERROR,
    ),
    Guard(
        f"{SOURCES}::test_a_file_that_is_fetched_must_have_the_sum_behind_its_address",
        f"{PACKAGE}/sources.py",
        "if expected and (found",
        "if not place and (found",
        NO_ERROR,
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.test.split("::test_")[1])
def test_without_its_guard_the_fault_shows(guard: Guard, tmp_path: Path):
    run = run_without(guard, tmp_path)
    if "1 skipped" in run.stdout:
        pytest.skip(run.stdout.splitlines()[-1])
    assert run.returncode == 1, run.stdout[-3000:]
    errors = [line for line in run.stdout.splitlines() if line.startswith("E ")]
    assert re.search(guard.says, "\n".join(errors)), run.stdout[-3000:]


def run_without(guard: Guard, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a test on a copy of the project that lacks its guard."""
    for name in (*COPIED, "tests", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    file = folder / guard.file
    text = file.read_text()
    assert text.count(guard.guard) == 1, f"{guard.file}: {guard.guard!r} is there {text.count(guard.guard)} times"
    file.write_text(text.replace(guard.guard, guard.without))
    command = [sys.executable, "-m", "pytest", "-n", "0", "-rs", "-p", "no:cacheprovider", f"tests/{guard.test}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
