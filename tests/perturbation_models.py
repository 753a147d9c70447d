"""Tiny checkpoints of real architectures, with weights large enough that every part of the network shows."""

from __future__ import annotations

import numpy as np
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from actspace.models import LanguageModel, wrap
from actspace.perturbations.directions import Pool
from actspace.perturbations.engine import Engine
from actspace.perturbations.setting import Activations, Setting

VOCABULARY, D_MODEL, N_LAYERS = 53, 32, 3
COMMON = {"vocab_size": VOCABULARY, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
SIZES = {"hidden_size": D_MODEL, "num_hidden_layers": N_LAYERS, "num_attention_heads": 4, "max_position_embeddings": 32}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48}


def tiny_model(family: str, n_layers: int = N_LAYERS) -> LanguageModel:
    """Make the tiny model of one family; the same weights each time."""
    sizes = {**SIZES, "num_hidden_layers": n_layers}
    gpt2 = {"n_embd": D_MODEL, "n_layer": n_layers, "n_head": 4, "n_positions": 32}
    makers = {
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**COMMON, **gpt2)),
        "gpt_neox": lambda: GPTNeoXForCausalLM(
            GPTNeoXConfig(**COMMON, **sizes, intermediate_size=48, rotary_pct=0.5, use_parallel_residual=True)
        ),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**COMMON, **sizes, **GROUPED)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**COMMON, **sizes, **GROUPED, sliding_window=3)),
        "granite": lambda: GraniteForCausalLM(GraniteConfig(**COMMON, **sizes, **GROUPED, logits_scaling=4.0)),
        "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**COMMON, **sizes, **GROUPED)),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = makers[family]()
        for weight in hf.parameters():  # biases and norms start as zeros and ones, which would hide mistakes
            if weight.ndim == 1:
                weight.data += 0.2 * torch.randn_like(weight)
    return wrap(hf)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draw standard normal numbers, float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def token_ids(prompts: int, tokens: int, seed: int = 0) -> torch.Tensor:
    """Draw prompts."""
    return torch.randint(VOCABULARY, (prompts, tokens), generator=torch.Generator().manual_seed(seed))


def activations(prompts: int = 4) -> Activations:
    """Draw prompts, bases, and a pool of thirty rows of ten other documents."""
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((30, D_MODEL)) + 0.5
    return Activations(
        token_ids=token_ids(prompts, 5),
        documents=np.arange(prompts),
        real=rng.standard_normal((prompts, D_MODEL)) + 0.5,
        pool=Pool(pool, np.arange(30) // 3 + 2),
    )


def tiny_setting(family: str, prompts: int) -> Setting:
    """Perturb a tiny model before its second block and read after its last."""
    read_hook = f"blocks.{N_LAYERS - 1}.hook_resid_post"
    return Setting(Engine(tiny_model(family), "blocks.1.hook_resid_pre", read_hook), activations(prompts))
