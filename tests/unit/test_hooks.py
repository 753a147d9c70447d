from __future__ import annotations

import json
from typing import Any

import pytest

from actspace import hooks
from actspace.errors import StudyError

DESCRIPTION: dict[str, Any] = {"normalization": "LayerNorm", "n_layers": 12, "context_length": 64}
CFG: dict[str, Any] = {
    "gauge": "centred",
    "hooks": {"captures.early.hooks": ["blocks.11.hook_resid_post", "ln_final.hook_normalized"]},
    "sites": {"perturbations.plateau": [["blocks.3.hook_resid_pre"], "blocks.3.hook_resid_pre"]},
    "lengths": {"tokens.prompts.length": 64},
}
SOURCE = {"kind": "folder", "path": "model"}


@pytest.mark.parametrize(
    ("hook", "blocks"),
    [
        ("blocks.0.hook_resid_pre", 0),
        ("blocks.0.hook_resid_post", 1),
        ("blocks.1.hook_resid_pre", 1),
        ("blocks.11.hook_resid_post", 12),
        ("ln_final.hook_normalized", 12),
    ],
)
def test_layer_of_counts_the_blocks_that_must_run(hook, blocks):
    assert hooks.layer_of(hook, 12) == blocks


@pytest.mark.parametrize(
    "hook", ["blocks.0.hook_mlp_out", "blocks.x.hook_resid_pre", "hook_embed", "", "blocks.0.hook_resid_pre "]
)
def test_other_hook_points_are_refused(hook):
    with pytest.raises(
        StudyError, match=f"'{hook}' is no hook point of the residual stream; write blocks.N.hook_resid_pre"
    ):
        hooks.layer_of(hook, 12)


@pytest.mark.parametrize("side", ["pre", "post"])
def test_a_block_that_the_model_lacks_is_named_with_the_nearest(side):
    with pytest.raises(StudyError, match="did you mean") as caught:
        hooks.check_hook(f"blocks.12.hook_resid_{side}", 12, "captures.early.hooks[1]")
    assert str(caught.value) == (
        f"captures.early.hooks[1]: this model has no 'blocks.12.hook_resid_{side}' (it has blocks 0 to 11); "
        f"did you mean 'blocks.11.hook_resid_{side}'?"
    )


@pytest.mark.parametrize("hook", ["blocks.0.hook_resid_pre", "blocks.11.hook_resid_post", "ln_final.hook_normalized"])
def test_hooks_that_exist_pass(hook):
    hooks.check_hook(hook, 12, "here")


def test_the_centred_gauge_is_refused_where_it_changes_the_output():
    with pytest.raises(
        StudyError, match=r"\Amodel.gauge: 'centred' changes the output .* with RMSNorm; set it to 'raw'\Z"
    ):
        hooks.check_gauge("centred", "RMSNorm")


@pytest.mark.parametrize(("gauge", "norm"), [("raw", "RMSNorm"), ("raw", "LayerNorm"), ("centred", "LayerNorm")])
def test_every_other_gauge_passes(gauge, norm):
    hooks.check_gauge(gauge, norm)


def test_a_study_that_the_model_can_do_passes():
    hooks.check_study(DESCRIPTION, CFG)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            "hooks",
            {"captures.a.hooks": ["blocks.0.hook_resid_pre", "blocks.12.hook_resid_pre"]},
            r"captures.a.hooks\[1\]: ",
        ),
        (
            "sites",
            {"perturbations.p": [["blocks.0.hook_resid_pre", "blocks.4.hook_resid_post"], "blocks.4.hook_resid_pre"]},
            r"perturbations.p.read: 'blocks.4.hook_resid_pre' comes before the site 'blocks.4.hook_resid_post'; choose a later",
        ),
        (
            "sites",
            {"perturbations.p": [["blocks.4.hook_resid_post"], "blocks.12.hook_resid_post"]},
            r"perturbations.p.read: this model has no",
        ),
        ("lengths", {"tokens.t.length": 65}, "tokens.t.length: 65 tokens, but the model's context is 64; shorten it"),
    ],
)
def test_what_the_model_cannot_do_is_named(key, value, line):
    with pytest.raises(StudyError, match=line):
        hooks.check_study(DESCRIPTION, CFG | {key: value})


def test_the_gauge_is_checked_with_the_study():
    with pytest.raises(StudyError, match="changes the output of a model with RMSNorm"):
        hooks.check_study(DESCRIPTION | {"normalization": "RMSNorm"}, CFG)


def test_a_study_is_checked_before_any_job_against_what_an_earlier_run_found(tmp_path):
    file = tmp_path / "model.json"
    too_long = CFG | {"lengths": {"tokens.t.length": 65}}
    hooks.check_known(file, SOURCE, too_long)  # no earlier run
    file.write_text(json.dumps(DESCRIPTION | {"source": SOURCE}))
    with pytest.raises(StudyError, match=r"tokens.t.length: 65 tokens"):
        hooks.check_known(file, SOURCE, too_long)
    hooks.check_known(file, SOURCE | {"path": "another"}, too_long)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_description_is_one_line(tmp_path, text):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(StudyError, match=r"model.json: not a model's description; delete it and run again\Z"):
        hooks.check_known(tmp_path / "model.json", SOURCE, CFG)
