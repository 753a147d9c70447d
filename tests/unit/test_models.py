from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import BertConfig, BertLMHeadModel

import checkpoints
from actspace import models, provenance
from actspace.activations.capture import replaced, residuals
from actspace.errors import StudyError
from actspace.provenance import MadeBy
from faults import change_inside

SETTINGS: dict[str, Any] = {"dtype": "float32", "trust_remote_code": False}
EXPECTED = {
    "gpt2": ("GPT2LMHeadModel", "LayerNorm"),
    "gpt_neox": ("GPTNeoXForCausalLM", "LayerNorm"),
    "llama": ("LlamaForCausalLM", "RMSNorm"),
}
TOKENS = torch.arange(24).view(2, 12) * 7 % checkpoints.VOCABULARY


@pytest.fixture(params=checkpoints.ARCHITECTURES)
def architecture(request):
    return request.param


@pytest.fixture
def folder(architecture, tmp_path):
    return checkpoints.make(architecture, tmp_path / "model")


@pytest.fixture
def gpt2(tmp_path):
    return checkpoints.make("gpt2", tmp_path / "model")


def test_converted_weights_that_were_changed_are_not_read(gpt2):
    provenance.stamp(gpt2 / "model.safetensors", MadeBy("small", "convert_model", {}, "c0de", {}))
    models.load(gpt2, SETTINGS)
    change_inside(gpt2 / "model.safetensors")
    with pytest.raises(StudyError, match=r"model.safetensors: is not what its receipt says; .* run again"):
        models.load(gpt2, SETTINGS)


def logits_of(model: models.LanguageModel) -> torch.Tensor:
    return model.hf(input_ids=TOKENS).logits


def test_wrap_finds_the_parts_of_every_architecture(architecture):
    hf = checkpoints.network(architecture)
    model = models.wrap(hf.train())
    assert (model.n_layers, model.d_model, model.context_length) == (2, 32, 64)
    assert model.normalization == EXPECTED[architecture][1]
    assert all("Block" in type(block).__name__ or "Layer" in type(block).__name__ for block in model.blocks)
    assert model.final_norm.weight.shape == (32,)
    assert not hf.training
    assert not any(weight.requires_grad for weight in hf.parameters())


def test_wrap_refuses_what_is_no_decoder_that_it_knows():
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 9,
    }
    with pytest.raises(StudyError, match="BertLMHeadModel has no list of blocks and final norm that actspace knows"):
        models.wrap(BertLMHeadModel(BertConfig(**sizes, is_decoder=True)))


def test_load_gives_the_weights_and_the_tokenizer_of_the_folder(architecture, folder):
    model = models.load(folder, SETTINGS)
    torch.testing.assert_close(logits_of(model), checkpoints.network(architecture)(input_ids=TOKENS).logits)
    assert model.tokenizer("The city").input_ids == checkpoints.tokenizer()("The city").input_ids
    assert model.device == torch.device("cpu")


def test_load_takes_the_dtype_that_the_config_asks_for(gpt2):
    assert {p.dtype for p in models.load(gpt2, SETTINGS | {"dtype": "bfloat16"}).hf.parameters()} == {torch.bfloat16}


def test_random_weights_are_those_of_their_seed(folder):
    first, again, other = (models.load(folder, SETTINGS | {"random_weights_seed": seed}) for seed in (5, 5, 6))
    assert torch.equal(logits_of(first), logits_of(again))
    assert not torch.equal(logits_of(first), logits_of(other))


def test_random_weights_are_drawn_as_the_architecture_does_not_as_it_was_trained(gpt2):
    trained, drawn = models.load(gpt2, SETTINGS), models.load(gpt2, SETTINGS | {"random_weights_seed": 5})
    assert float((logits_of(trained) - logits_of(drawn)).abs().max()) > 0.1
    assert float(drawn.blocks[0].attn.c_attn.weight.std()) == pytest.approx(0.2, rel=0.1)  # initializer_range
    assert bool((drawn.final_norm.weight == 1).all())


def test_random_weights_leave_the_global_random_state_alone(gpt2):
    with torch.random.fork_rng():
        torch.manual_seed(99)
        before = torch.random.get_rng_state()
        models.load(gpt2, SETTINGS | {"random_weights_seed": 5})
        assert torch.equal(torch.random.get_rng_state(), before)


def test_a_folder_of_pickles_is_refused(gpt2):
    torch.save(checkpoints.network("gpt2").state_dict(), gpt2 / "pytorch_model.bin")
    (gpt2 / "model.safetensors").unlink()
    with pytest.raises(StudyError, match=r"\A\S+: no \*.safetensors; only safetensors are read, convert .*\Z"):
        models.load(gpt2, SETTINGS)


def test_weights_that_a_file_lacks_are_not_drawn_at_random(gpt2):
    weights = load_file(gpt2 / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, gpt2 / "model.safetensors", metadata={"format": "pt"})
    line = r"\A\S+: 1 weights of GPT2LMHeadModel are not in its safetensors, the first is transformer.h.1.mlp.c_fc.weight; "
    with pytest.raises(StudyError, match=line):
        models.load(gpt2, SETTINGS)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_file_is_one_line_that_names_the_folder(gpt2, name):
    (gpt2 / name).write_bytes((gpt2 / name).read_bytes()[:-100])
    with pytest.raises(StudyError, match=r"\A\S+model: this model cannot be read \([^\n]+\); get it again[^\n]+\Z"):
        models.load(gpt2, SETTINGS)


def test_describe_reads_no_weights(architecture, folder):
    n_parameters = sum(p.numel() for p in models.load(folder, SETTINGS).hf.parameters())
    (folder / "model.safetensors").unlink()
    assert models.describe(folder) == {
        "architecture": EXPECTED[architecture][0],
        "n_layers": 2,
        "d_model": 32,
        "context_length": 64,
        "normalization": EXPECTED[architecture][1],
        "vocabulary": 300,
        "n_parameters": n_parameters,
    }


def test_describe_needs_a_model_that_transformers_knows(gpt2):
    (gpt2 / "config.json").write_text('{"model_type": "perceptron"}')
    with pytest.raises(StudyError, match=r"\A\S+: this model cannot be read \(.*`perceptron`[^\n]*\Z"):
        models.describe(gpt2)


@pytest.mark.parametrize("architecture", [*checkpoints.ARCHITECTURES, "gemma2"])
def test_logits_off_the_last_residual_are_the_models(architecture):
    model = models.wrap(checkpoints.network(architecture))
    last = residuals(model, TOKENS, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"]
    torch.testing.assert_close(model.logits(last), logits_of(model))


def test_logits_that_a_model_caps_are_capped():
    model = models.wrap(checkpoints.network("gemma2"))
    model.hf.config.final_logit_softcapping = 0.5
    last = residuals(model, TOKENS, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"]
    torch.testing.assert_close(model.logits(last), logits_of(model))
    assert float(model.logits(last).abs().max()) <= 0.5


def test_normalized_is_the_final_norm_without_its_weights(architecture):
    model = models.wrap(checkpoints.network(architecture))
    x = 3 * torch.randn(4, 5, 32, generator=torch.Generator().manual_seed(0)) + 1
    if architecture == "llama":
        expected = functional.rms_norm(x, (32,), eps=model.final_norm.variance_epsilon)
    else:
        expected = functional.layer_norm(x, (32,), eps=model.final_norm.eps)
    torch.testing.assert_close(model.normalized(x), expected)


def test_normalized_computes_in_float32_and_keeps_the_dtype():
    model = models.wrap(checkpoints.network("gpt2"))
    x = 300 * torch.arange(32)[None]  # squares of these overflow float16
    half = model.normalized(x.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), model.normalized(x.float()), rtol=1e-3, atol=1e-3)


def test_the_centred_gauge_removes_the_mean_over_d_model_and_raw_nothing():
    x = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
    assert models.to_gauge(x, "centred").tolist() == [[-2, -1, 3], [0, 0, 0]]
    assert models.to_gauge(x, "raw") is x


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_the_centred_gauge_leaves_the_output_of_layernorm_models(architecture, layer):
    model = models.wrap(checkpoints.network(architecture))
    with replaced(model, layer, lambda x: models.to_gauge(x, "centred")):
        centred = logits_of(model)
    torch.testing.assert_close(centred, logits_of(model), rtol=1e-4, atol=1e-5)


def test_the_centred_gauge_changes_the_output_of_an_rmsnorm_model():
    model = models.wrap(checkpoints.network("llama"))
    with replaced(model, 1, lambda x: models.to_gauge(x, "centred")):
        centred = logits_of(model)
    assert float((centred - logits_of(model)).abs().max()) > 0.01


def test_weight_hashes_are_those_of_the_files(gpt2):
    found = models.weight_hashes(gpt2)
    assert found == {"model.safetensors": models.sources.sha256_of(gpt2 / "model.safetensors")}


@pytest.fixture
def sharded(tmp_path):
    folder = tmp_path / "sharded"
    checkpoints.network("gpt2").save_pretrained(folder, max_shard_size="50KB")
    checkpoints.tokenizer().save_pretrained(folder)
    (folder / "other.safetensors").write_bytes(b"not of this model")
    return folder


def parts_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("model-*.safetensors"))


def test_weights_in_parts_are_those_that_the_index_names(sharded):
    assert len(parts_of(sharded)) > 1
    assert sorted(models.weight_hashes(sharded)) == parts_of(sharded)
    torch.testing.assert_close(
        logits_of(models.load(sharded, SETTINGS)), checkpoints.network("gpt2")(input_ids=TOKENS).logits
    )


@pytest.mark.parametrize("reader", [models.weight_hashes, lambda folder: models.load(folder, SETTINGS)])
def test_a_missing_part_is_named(sharded, reader):
    missing = parts_of(sharded)[1]
    (sharded / missing).unlink()
    with pytest.raises(StudyError, match=f"no {missing}; only safetensors are read"):
        reader(sharded)


def test_a_local_folder_is_where_the_config_says(gpt2, tmp_path):
    assert models.locate({"kind": "folder", "path": str(gpt2)}) == gpt2
    assert models.revision_of({"kind": "folder", "path": str(gpt2)}) == "local folder"
    with pytest.raises(
        StudyError, match=r"\Amodel.source.path: '\S+' has no config.json; give a folder in Hugging Face"
    ):
        models.locate({"kind": "folder", "path": str(tmp_path)})


def test_a_converted_model_lies_beside_its_weights(tmp_path):
    source = {"kind": "gguf", "path": "elsewhere.gguf", "sha256": "a" * 64}
    assert models.locate(source, tmp_path / "model.safetensors") == tmp_path
    assert models.revision_of(source) == "a" * 64


def test_a_gguf_file_with_another_sum_is_refused(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"abc")
    source = {"kind": "gguf", "path": "m.gguf", "sha256": "0" * 64}
    with pytest.raises(StudyError, match=r"model.source.path: m.gguf has sha256 ba7816bf"):
        models.gguf_of(source, tmp_path / "m.gguf", tmp_path)


def test_checkpoints_are_the_same_bytes_each_time(architecture, folder, tmp_path):
    again = checkpoints.make(architecture, tmp_path / "again")
    assert sorted(path.name for path in again.iterdir()) == sorted(path.name for path in folder.iterdir())
    assert [path.read_bytes() for path in sorted(again.iterdir())] == [p.read_bytes() for p in sorted(folder.iterdir())]
    config = json.loads((folder / "config.json").read_text())
    assert config["vocab_size"] == 300


CODE = """
from pathlib import Path
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

Path({marker!r}).write_text("run")

class OddConfig(GPT2Config):
    model_type = "odd"

class OddModel(GPT2LMHeadModel):
    config_class = OddConfig

class OddTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def odd(gpt2, tmp_path, monkeypatch):
    """A model that comes with code, and the file that its code writes when it runs."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    marker = tmp_path / "marker"
    (gpt2 / "modeling.py").write_text(CODE.format(marker=str(marker)))
    for name, own in (
        (
            "config.json",
            {
                "model_type": "odd",
                "auto_map": {"AutoConfig": "modeling.OddConfig", "AutoModelForCausalLM": "modeling.OddModel"},
            },
        ),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "OddTokenizer", "auto_map": {"AutoTokenizer": [None, "modeling.OddTokenizer"]}},
        ),
    ):
        (gpt2 / name).write_text(json.dumps(json.loads((gpt2 / name).read_text()) | own))
    return gpt2, marker


@pytest.mark.parametrize(
    "read",
    [
        models.describe,
        models.load_tokenizer,
        lambda folder: models.load(folder, SETTINGS),
        lambda folder: models.load(folder, SETTINGS | {"random_weights_seed": 1}),
    ],
)
def test_code_that_comes_with_a_model_is_not_run(odd, read):
    folder, marker = odd
    with pytest.raises(
        StudyError, match=r"\A\S+: this model comes with Python code of its own, which was not run; [^\n]+\Z"
    ):
        read(folder)
    assert not marker.exists()


def test_code_that_is_trusted_is_run(odd):
    folder, marker = odd
    assert models.describe(folder, trust_remote_code=True)["architecture"] == "OddModel"
    assert marker.read_text() == "run"


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 64, b"PK\x03\x04" * 20, b"\x80\x04cos\nsystem\n."]
)
def test_a_file_that_is_no_gguf_is_one_line(tmp_path, content):
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(StudyError, match=r"\A\S+m.gguf: this model cannot be read \([^\n]+\); get it again[^\n]+\Z"):
        models.convert_gguf(tmp_path / "m.gguf", tmp_path / "converted")
