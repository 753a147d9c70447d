"""Sparse autoencoders exchanged with SAELens: by its own code, in an environment of its own, and by folders written here."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import saelens_folders
from actspace.dictionaries import base, layout, saelens
from actspace.errors import StudyError

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
D_MODEL, LATENTS = 8, 24
HOOK = "blocks.1.hook_resid_pre"


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ours():
    weights = saelens_folders.tensors(D_MODEL, LATENTS)
    thresholds = weights | {"threshold": gaussian(LATENTS, seed=2).abs() / 2}
    return {
        "l1": base.L1(weights),
        "topk": base.TopK(weights, k=5),
        "jumprelu": base.JumpReLU(thresholds),
        "batch_topk": base.BatchTopK(thresholds, k=5),
        "matryoshka": base.Matryoshka(thresholds, k=5, widths=[8, LATENTS]),
    }


def dense(dictionary, x):
    codes = dictionary.encode(x)
    return torch.zeros(len(x), dictionary.n_latents).scatter_add(1, codes.indices, codes.values)


X = gaussian(64, D_MODEL, seed=1)


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory):
    """A folder with our SAEs, those of SAELens, and what SAELens computes with all of them."""
    if not PEERS.exists():
        pytest.skip("SAELens has an environment of its own, which `make bench-peers` sets up")
    folder = tmp_path_factory.mktemp("exchange")
    save_file({"x": X}, folder / "x.safetensors")
    for name, sae in ours().items():
        base.save(sae, folder / "ours" / name, {"made_by": "a test"})
    environment = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [PEERS, ROOT / "tests" / "peers" / "exchange.py", folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def agree(folder, name):
    theirs, sae = load_file(folder / f"{name}.safetensors"), base.load(folder / name)
    torch.testing.assert_close(dense(sae, X), theirs["latents"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae(X), theirs["reconstruction"], atol=1e-5, rtol=1e-5)
    assert 0 < (theirs["latents"] > 0).float().mean() < 0.9


@pytest.mark.parametrize("family", ours())
def test_saelens_reads_our_saes_and_computes_the_same(exchanged, family):
    agree(exchanged / "ours", family)


def test_every_sae_that_saelens_makes_is_read_and_computes_the_same(exchanged):
    names = sorted(path.stem for path in (exchanged / "theirs").glob("*.safetensors"))
    assert len(names) == 8
    for name in names:
        agree(exchanged / "theirs", name)


def test_every_family_of_saes_has_an_architecture_in_saelens():
    saes = {name for name, kind in base.FAMILIES.items() if issubclass(kind, base.SAE)}
    assert saes == set(saelens.ARCHITECTURES) == set(ours())


def test_our_metadata_and_those_of_saelens_stand_side_by_side(tmp_path):
    saelens.save(ours()["topk"], tmp_path, {"hook_name": HOOK, "model_name": "gpt2", "actspace": {"made_by": "me"}})
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    assert (cfg["architecture"], cfg["d_in"], cfg["d_sae"], cfg["k"]) == ("topk", D_MODEL, LATENTS, 5)
    assert cfg["metadata"]["hook_name"] == HOOK
    assert cfg["metadata"]["actspace"] == {"made_by": "me", "family": "topk", "settings": {"k": 5}}


def test_latents_scaled_in_fine_tuning_decode_scaled(tmp_path):
    weights = saelens_folders.tensors(D_MODEL, LATENTS, names=("scaling_factor",))
    saelens_folders.write(tmp_path, weights, finetuning_scaling_factor=True)
    sae = base.load(tmp_path)
    expected = (dense(sae, X) * weights["scaling_factor"]) @ weights["W_dec"] + weights["b_dec"]
    torch.testing.assert_close(sae(X), expected)
    saelens_folders.write(tmp_path, weights)
    with pytest.raises(StudyError, match="finetuning_scaling_factor is false"):
        base.load(tmp_path)


def test_the_form_from_before_saelens_6_is_read(tmp_path):
    weights = saelens_folders.tensors(D_MODEL, LATENTS)
    old = {"metadata": None, "hook_point": HOOK, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}
    folder = saelens_folders.write(tmp_path, weights, **old, normalize_activations=False)
    assert layout.check(folder, hook=HOOK)["metadata"]["hook_name"] == HOOK
    torch.testing.assert_close(base.load(folder)(X), base.TopK(weights, k=3)(X))


def test_what_one_block_puts_out_is_what_the_next_one_gets(tmp_path):
    folder = saelens_folders.write(
        tmp_path, saelens_folders.tensors(D_MODEL, LATENTS), metadata={"sae_lens_version": "6", "hook_name": HOOK}
    )
    layout.check(folder, D_MODEL, "blocks.0.hook_resid_post")
    with pytest.raises(StudyError, match=rf"made for '{HOOK}', not for 'blocks\.1\.hook_resid_post'"):
        layout.check(folder, D_MODEL, "blocks.1.hook_resid_post")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "transcoder"}, "architecture 'transcoder' is not read; standard, topk, jumprelu, gated are"),
        ({"architecture": "batchtopk"}, "is an SAE in training.*save_inference_model"),
        ({"architecture": "jumprelu"}, "threshold is missing in the architecture 'jumprelu'"),
        ({"architecture": "topk"}, "k is None; it must be a positive integer"),
        ({"architecture": "topk", "k": 99}, "k is 99, more than the 24 latents"),
        ({"normalize_activations": "layer_norm"}, "'layer_norm' cannot be folded into the weights"),
        ({"normalize_activations": "expected_average_only_in"}, "its factor is not in the folder; fold it in"),
        ({"activation_fn": "tanh-relu"}, "activation_fn 'tanh-relu' is not read"),
        ({"reshape_activations": "hook_z"}, "made for attention heads"),
        ({"d_sae": 12}, r"W_dec has the shape \(24, 8\), but cfg.json says \(12, 8\)|W_enc has the shape"),
        ({"d_in": None}, "d_in is None; it must be a positive integer"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, settings, message):
    saelens_folders.write(tmp_path, saelens_folders.tensors(D_MODEL, LATENTS), **settings)
    with pytest.raises(StudyError, match=message) as refused:
        base.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_another_width_than_the_models_is_refused(tmp_path):
    saelens_folders.write(tmp_path, saelens_folders.tensors(D_MODEL, LATENTS))
    with pytest.raises(StudyError, match="d_in is 8, but the model's activations have 16 dimensions"):
        layout.check(tmp_path, d_model=16)


def test_pickles_and_damaged_files_are_refused(tmp_path):
    weights = saelens_folders.tensors(D_MODEL, LATENTS)
    folder = saelens_folders.write(tmp_path, weights)
    path = folder / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StudyError, match="cannot be read as a safetensors file"):
        base.load(folder)
    path.rename(folder / "sae.pt")
    with pytest.raises(StudyError, match=r"no sae_weights\.safetensors; sae\.pt is a pickle"):
        base.load(folder)
    with pytest.raises(StudyError, match="there is no such folder"):
        layout.check(tmp_path / "absent")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    weights = saelens_folders.tensors(D_MODEL, LATENTS)
    weights["W_dec"][3, 2] = torch.nan
    saelens_folders.write(tmp_path, weights)
    with pytest.raises(StudyError, match="W_dec holds a NaN or an infinity"):
        base.load(tmp_path)
