from __future__ import annotations

import pytest
from tiny import TinyStudy


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> TinyStudy:
    """A finished tiny study of the Llama architecture; tests leave it as they found it."""
    study = TinyStudy(tmp_path_factory.mktemp("llama"), "llama")
    run = study.snakemake()
    assert run.code == 0, run.text[-5000:]
    return study


@pytest.fixture(scope="session", params=["gpt2", "gpt_neox"])
def centred(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyStudy:
    """A finished smaller study of an architecture with LayerNorm, in the centred gauge."""
    study = TinyStudy(tmp_path_factory.mktemp(request.param), request.param, small=True)
    run = study.snakemake()
    assert run.code == 0, run.text[-5000:]
    return study
