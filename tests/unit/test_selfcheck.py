from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import checkpoints
from actspace import models
from actspace.activations import capture, selfcheck
from actspace.errors import StudyError

SETTINGS: dict[str, Any] = {"dtype": "float32", "trust_remote_code": False, "gauge": "raw"}
TOKENS = torch.arange(20).view(2, 10) * 13 % checkpoints.VOCABULARY
MIDDLE, LAST = "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"


@pytest.fixture
def folder(tmp_path):
    return checkpoints.make("gpt2", tmp_path / "model")


def check(folder: Path, model: models.LanguageModel | None = None, **changes: Any) -> Any:
    settings = SETTINGS | changes
    return selfcheck.check(model or models.load(folder, settings), folder, TOKENS, settings)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", checkpoints.ARCHITECTURES)
def test_real_architectures_pass(architecture, dtype, tmp_path):
    gauge = "raw" if architecture == "llama" else "centred"
    table = check(checkpoints.make(architecture, tmp_path), dtype=dtype, gauge=gauge)
    assert len(table) == 3 + 4 + 2  # own checks; four hooks, the final one and the logits against the bridge
    assert (table["relative_deviation"] <= table["tolerance"]).all()
    assert set(table["tolerance"]) == {selfcheck.TOLERANCE[dtype]}


def test_an_input_that_is_not_the_output_before_is_found(folder):
    model = models.load(folder, SETTINGS)
    model.blocks[1].register_forward_pre_hook(lambda _block, args: (args[0] * 1.01, *args[1:]))
    with pytest.raises(
        StudyError, match="self-check failed: resid_pre of each block, against resid_post of the one bef"
    ):
        check(folder, model)


def test_a_hook_that_reads_another_place_is_named(folder, monkeypatch):
    def shifted(*arguments: Any) -> dict[str, torch.Tensor]:
        read = capture.residuals(*arguments)
        return read | {MIDDLE: read["blocks.0.hook_resid_pre"]}

    monkeypatch.setattr(selfcheck, "residuals", shifted)
    line = r"\Aself-check failed: blocks.1.hook_resid_pre, TransformerLens bridge against .* cannot be trusted\Z"
    with pytest.raises(StudyError, match=line):
        check(folder)


def test_a_last_residual_that_is_not_the_models_is_found(folder, monkeypatch):
    monkeypatch.setattr(selfcheck, "residuals", lambda *a: capture.residuals(*a) | {LAST: torch.ones(2, 10, 32)})
    with pytest.raises(StudyError, match="self-check failed: logits, from the last residual: relative deviation"):
        check(folder)


def test_weights_that_are_not_the_folders_are_found(folder):
    model = models.load(folder, SETTINGS)
    model.blocks[0].mlp.c_proj.weight.data[0, 0] += 1
    with pytest.raises(StudyError, match=r"blocks.0.hook_resid_post, TransformerLens bridge against transformers"):
        check(folder, model)


def test_a_gauge_that_changes_the_output_is_found(tmp_path):
    with pytest.raises(StudyError, match="self-check failed: logits, from the last residual in the centred gauge"):
        check(checkpoints.make("llama", tmp_path), gauge="centred")


def test_nan_is_no_agreement(folder, monkeypatch):
    monkeypatch.setattr(
        selfcheck, "residuals", lambda *a: capture.residuals(*a) | {LAST: torch.full((2, 10, 32), torch.nan)}
    )
    with pytest.raises(StudyError, match="relative deviation nan, allowed 1e-04"):
        check(folder)


def test_the_deviation_is_that_of_the_worst_token():
    right = torch.tensor([[[3.0, 4.0], [6.0, 8.0]]])
    assert selfcheck._deviation(right + torch.tensor([0.0, 1.0]), right) == pytest.approx(0.2)
    assert selfcheck._deviation(right, right) == 0


def test_an_empty_vector_agrees_with_itself_alone():
    zero = torch.zeros(1, 2, 4)  # the embedding of a token that was never trained
    assert selfcheck._deviation(zero, zero) == 0
    assert selfcheck._deviation(zero + 1e-6, zero) > 1


def test_a_massive_activation_at_one_token_hides_no_error_at_another():
    right = torch.ones(1, 4, 8)
    right[0, 0, 3] = 30_000  # as in Llama-like models at position 0
    wrong = right.clone()
    wrong[0, 2] *= -1
    assert selfcheck._deviation(wrong, right) == pytest.approx(2)


def test_no_hook_stays_on_the_model(folder):
    model = models.load(folder, SETTINGS)
    before = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.blocks]
    check(folder, model)
    assert [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.blocks] == before
