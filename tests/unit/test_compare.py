from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_claims_falsified import claim_tables, fits

from actspace import claims, manifest, provenance, tables
from actspace.compare import differences, figure, folders
from actspace.compare.__main__ import main
from actspace.errors import StudyError
from actspace.provenance import MadeBy

CFG = {
    "study": "a",
    "title": "First",
    "seed": 0,
    "model": {"source": {"kind": "hub", "revision": "aaaa"}, "gauge": "raw"},
    "corpus": {"sources": [{"path": "text.txt", "columns": ["text", "id"]}]},
}
VERSIONS = {"torch": "2.13.0", "numpy": "2.4.6"}
WEIGHTS, TEXT = "weights of model.json: model.safetensors", "text.txt"
HOSTILE = "<script>alert('x')</script>&\"</title>"


@pytest.fixture(scope="module")
def study_tables():
    return claim_tables()


def finish(
    folder: Path,
    found: dict[str, pd.DataFrame],
    versions: dict[str, str] = VERSIONS,
    code: str = "c0de",
    weights: str = "11" * 32,
    text: str = "22" * 32,
    title: str = "First",
    **settings: Any,
) -> Path:
    """Write the folder of a finished study whose claims are judged by some tables."""
    cfg = CFG | {"study": folder.name, "title": title} | settings
    outside = {TEXT: text}

    def made_by(rule: str, cfg: Any = None, **inputs: str) -> MadeBy:
        return MadeBy(folder.name, rule, cfg or {}, code, {**outside, f"results/{folder.name}/x": "33" * 32}, versions)

    model = json.dumps({"weights": {"model.safetensors": weights}})
    for name, rule, text in (("model.json", "model", model), ("report.html", "report", "")):
        provenance.write(folder / name, lambda path, text=text: path.write_text(text), made_by(rule, cfg))
    tables.write(folder / "tokens/contexts.parquet", pd.DataFrame({"seed": [cfg["seed"]]}), made_by("tokens_contexts"))
    tables.write_both(folder / "tables/claims.parquet", claims.evaluate(found), made_by("claims"))
    tables.write_both(folder / "tables/untested_claims.parquet", claims.untested(found), made_by("claims"))
    receipts = [path for path in folder.rglob("*.json") if path.with_suffix("").is_file()]
    manifest.write(folder / "manifest.json", map(str, receipts))
    return folder


@pytest.fixture
def first(tmp_path, study_tables):
    return finish(tmp_path / "first", study_tables)


def read(*places: Path) -> list[folders.Finished]:
    return folders.read_all(places)


def run(tmp_path, capsys, *places: Path) -> tuple[str, str]:
    """Run the command; return the page and what it printed."""
    assert main([*map(str, places), "--output", str(tmp_path / "out")]) == 0
    return (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8"), capsys.readouterr().out


def test_studies_that_are_equal_but_for_their_names_do_not_differ(tmp_path, capsys, first, study_tables):
    html, line = run(tmp_path, capsys, first, finish(tmp_path / "second", study_tables, title="Second"))
    assert "<strong>No difference</strong> in settings, inputs, software, code or verdicts" in html
    assert "what differs: settings 0, inputs 0, versions 0, code 0, verdicts 0" in line


def test_a_seed_shows_among_settings_and_in_what_it_made(tmp_path, first, study_tables):
    studies = read(first, finish(tmp_path / "second", study_tables, seed=1))
    assert differences.settings(studies).to_numpy().tolist() == [["seed", "0", "1"]]
    assert differences.inputs(studies)["input"].tolist() == ["rows of tokens/contexts.parquet"]


def test_a_revision_shows_among_settings_and_weights_among_inputs(tmp_path, first, study_tables):
    model = {"source": {"kind": "hub", "revision": "bbbb"}, "gauge": "raw"}
    studies = read(first, finish(tmp_path / "second", study_tables, model=model, weights="44" * 32))
    assert differences.settings(studies).to_numpy().tolist() == [["model.source.revision", "aaaa", "bbbb"]]
    assert differences.inputs(studies).to_numpy().tolist() == [[WEIGHTS, "11" * 32, "44" * 32]]


def test_a_text_of_the_users_own_shows_among_inputs(tmp_path, first, study_tables):
    studies = read(first, finish(tmp_path / "second", study_tables, text="55" * 32))
    assert differences.inputs(studies).to_numpy().tolist() == [[TEXT, "22" * 32, "55" * 32]]


def test_a_setting_that_one_study_lacks_is_shown_as_absent(tmp_path, first, study_tables):
    studies = read(first, finish(tmp_path / "second", study_tables, optima={"x": {"prompts": 7}}))
    assert differences.settings(studies).to_numpy().tolist() == [["optima.x.prompts", "–", "7"]]


def test_versions_and_code_that_differ_are_listed(tmp_path, first, study_tables):
    studies = read(first, finish(tmp_path / "second", study_tables, versions=VERSIONS | {"torch": "2.14"}, code="beef"))
    assert differences.versions(studies).to_numpy().tolist() == [["torch", "2.13.0", "2.14"]]
    assert set(differences.code(studies)["rule"]) == {"model", "report", "tokens_contexts", "claims"}
    assert (differences.code(studies)[["first", "second"]] == ["c0de", "beef"]).all(axis=None)


def test_a_study_made_with_two_versions_shows_both(tmp_path, first, study_tables):
    receipt = provenance.receipt_of(first / "model.json")
    record = json.loads(receipt.read_text())
    receipt.write_text(json.dumps(record | {"versions": VERSIONS | {"torch": "2.12"}}))
    studies = read(first, finish(tmp_path / "second", study_tables))
    assert differences.versions(studies).to_numpy().tolist() == [["torch", "2.12, 2.13.0", "2.13.0"]]


def test_three_studies_stand_side_by_side_opposite_verdicts_first(tmp_path, capsys, first, study_tables):
    worse = {"dictionary_metrics": fits("fvu_pooled", to=0.5, family="kmeans")(study_tables["dictionary_metrics"])}
    toy_alone = {"toy_truth": study_tables["toy_truth"]}
    places = [first, finish(tmp_path / "second", study_tables | worse), finish(tmp_path / "third", toy_alone)]
    table = differences.verdicts(read(*places))
    order = table["agreement"].map(differences.AGREEMENTS.index)
    assert order.is_monotonic_increasing
    assert all(list(rows) == ["first", "second", "third"] for _, rows in table.groupby("id")["study"])
    by_claim = table.set_index(["id", "study"])["verdict"]
    assert by_claim["kmeans_explains_72_to_87"].tolist() == ["holds", "fails", "not tested"]
    assert table[table["id"] == "kmeans_explains_72_to_87"]["agreement"].unique() == ["opposite"]
    assert table[table["id"] == "plateaus"]["agreement"].unique() == ["not everywhere"]
    assert table[table["id"] == "lr_is_better_probe"]["agreement"].unique() == ["same"]
    html, _ = run(tmp_path, capsys, *places)
    assert html.index("k-means explains 72 to 87%") < html.index("The tilted direction is the better probe")
    assert html.count('<thead><tr><th scope="col">Claim</th>') == 2


def test_every_table_lies_beside_the_page_with_its_receipt(tmp_path, capsys, first, study_tables):
    html, _ = run(tmp_path, capsys, first, finish(tmp_path / "second", study_tables, seed=1))
    out = tmp_path / "out"
    for name in ("settings", "inputs", "versions", "code", "verdicts"):
        assert list(pd.read_csv(out / f"{name}.csv")) == list(tables.read(out / f"{name}.parquet"))
        assert provenance.read_receipt(out / f"{name}.csv.json")["rule"] == "compare"
    assert "not checked against their manifests" in html


class Tags(HTMLParser):
    """Collect the tags of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)


def test_hostile_names_are_escaped(tmp_path, capsys, first, study_tables):
    second = finish(tmp_path / "<b>&x", study_tables, title=HOSTILE, corpus={HOSTILE: HOSTILE})
    path = second / "tables/claims.parquet"
    tables.write(path, tables.read(path).assign(title=HOSTILE), MadeBy("x", "claims", {}, "c", {}))
    html, _ = run(tmp_path, capsys, second, first)
    assert "script" not in Tags(html).found
    assert not {"b"} & set(Tags(html).found)
    assert "alert(" in html
    assert not re.search(r"(?:src|href)=\"(?:https?:|//)", html)


def test_folders_of_one_name_are_told_apart_by_the_folders_above(tmp_path, study_tables):
    places = [finish(tmp_path / part / "results/embedded", study_tables) for part in ("x", "y")]
    assert [study.name for study in read(*places)] == ["x/results/embedded", "y/results/embedded"]


def test_a_moved_folder_without_its_large_files_is_read_as_well(tmp_path, capsys, first, study_tables):
    second = finish(tmp_path / "second", study_tables)
    (second / "tokens/contexts.parquet").unlink()
    html, _ = run(tmp_path, capsys, first, second.rename(tmp_path / "unpacked"))
    assert "not in the folder" in html
    assert "No difference in settings" in html


def test_a_folder_without_a_manifest_is_one_line(tmp_path, capsys, first):
    (tmp_path / "empty").mkdir()
    assert main([str(first), str(tmp_path / "empty")]) == 1
    error = capsys.readouterr().err
    assert error == f"{tmp_path / 'empty'}: no readable manifest.json; give the results folder of a finished study\n"


@pytest.mark.parametrize("damage", ["[]", '{"files": []}', '{"files": {"x": 1}}', "{"])
def test_a_damaged_manifest_is_one_line(first, damage):
    (first / "manifest.json").write_text(damage)
    with pytest.raises(StudyError, match=r"no readable manifest\.json"):
        folders.read(first, "first")


def test_one_folder_twice_is_refused(first):
    with pytest.raises(StudyError, match="two different studies or more, each once"):
        read(first, first)


def test_a_folder_without_its_claims_or_settings_is_refused(tmp_path, first, study_tables):
    (first / "tables/claims.parquet").unlink()
    with pytest.raises(StudyError, match=r"claims\.parquet: missing; give"):
        folders.read(first, "first")
    second = finish(tmp_path / "second", study_tables)
    provenance.receipt_of(second / "report.html").unlink()
    with pytest.raises(StudyError, match=r"no receipt of report\.html, which has the settings"):
        folders.read(second, "second")


def test_claims_of_an_older_version_are_refused(first):
    path = first / "tables/claims.parquet"
    tables.write(path, tables.read(path).drop(columns="lowest"), MadeBy("x", "claims", {}, "c", {}))
    with pytest.raises(StudyError, match="of an older version; run the study again"):
        folders.read(first, "first")


def claim_rows(lowest, highest, *values):
    rows = [(f"s{n}", value, value - 1, value + 1) for n, value in enumerate(values)]
    table = pd.DataFrame(rows, columns=["study", "value", "low", "high"])
    about = {"id": "x", "title": "X", "unit": "degrees", "lowest": lowest, "highest": highest}
    return table.assign(**about).astype({"lowest": float, "highest": float})


def test_a_row_is_scaled_by_the_farthest_end_from_its_limit():
    found, unit = figure.scaled(claim_rows(40, np.inf, 45, 37))
    assert unit == 6
    assert found["value"].tolist() == pytest.approx([5 / 6, -0.5])
    assert found["lowest"].tolist() == [0, 0]


def test_a_row_with_a_range_is_scaled_around_its_middle():
    found, unit = figure.scaled(claim_rows(0.4, 0.6, 4.5))
    assert unit == pytest.approx(5)
    assert found[["lowest", "highest"]].iloc[0].tolist() == pytest.approx([-0.02, 0.02])


def test_the_figure_draws_each_value_and_infinite_ones_at_the_edge():
    drawn = figure.draw(claim_rows(40, np.inf, 45, np.inf), ["s0", "s1"])
    points = [line for line in drawn.axes[0].lines if line.get_linestyle() == "None"]
    assert [float(line.get_xdata()[0]) for line in points] == pytest.approx([5 / 6, figure.EDGE])
    assert [line.get_marker() for line in points] == ["o", ">"]
    right = drawn.axes[0].child_axes[0]
    assert [label.get_text() for label in right.get_yticklabels()] == ["6 degrees"]
