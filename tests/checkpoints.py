"""Tiny checkpoints of real architectures: random weights in which every part shows, and a byte-level BPE tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

torch.set_num_threads(1)  # networks this small are slower on more

ARCHITECTURES = ("gpt2", "gpt_neox", "llama")
"""LayerNorm and learned positions; LayerNorm, partial rotary positions, parallel blocks; RMSNorm, grouped queries."""
VOCABULARY, D_MODEL, N_LAYERS, CONTEXT = 300, 32, 2, 64
SPECIAL = "<|endoftext|>"
TEXT = "The cat sat on the mat, and the city of Paris is in France; 0123456789 elements have symbols.\n"

IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
SIZES = {"hidden_size": D_MODEL, "num_attention_heads": 4, "max_position_embeddings": CONTEXT, "intermediate_size": 48}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
MAKERS: dict[str, Callable[..., PreTrainedModel]] = {
    "gpt2": lambda num_hidden_layers, **common: GPT2LMHeadModel(
        GPT2Config(n_embd=D_MODEL, n_layer=num_hidden_layers, n_head=4, n_positions=CONTEXT, **common)
    ),
    "gpt_neox": lambda **common: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, rotary_pct=0.5, **common)),
    "llama": lambda **common: LlamaForCausalLM(LlamaConfig(**GROUPED, **common)),
    "mistral": lambda **common: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=3, **common)),
    "gemma2": lambda **common: Gemma2ForCausalLM(Gemma2Config(**GROUPED, **common)),
}


def make(architecture: str, folder: Path, vocabulary_text: str = TEXT, **sizes: Any) -> Path:
    """Write a checkpoint as a Hugging Face folder with safetensors and return the folder; equal calls, equal bytes.

    `vocabulary_text` is what the tokenizer learns its merges from; `sizes` are those of `network`.
    """
    network(architecture, **sizes).save_pretrained(folder)
    tokenizer(vocabulary_text).save_pretrained(folder)
    return folder


def network(
    architecture: str, n_layers: int = N_LAYERS, vocabulary: int = VOCABULARY, seed: int = 0
) -> PreTrainedModel:
    """Make the model of a checkpoint, the same weights each time; mistral and gemma2 are known beside `ARCHITECTURES`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hf = MAKERS[architecture](num_hidden_layers=n_layers, vocab_size=vocabulary, initializer_range=0.2, **IDS)
        for weight in hf.parameters():
            if weight.ndim == 1:  # biases and norms start as zeros and ones, which would hide mistakes
                weight.data += 0.2 * torch.randn_like(weight)
    return hf.eval()


def tokenizer(vocabulary_text: str = TEXT) -> PreTrainedTokenizerFast:
    """Train a tokenizer like GPT-2's, of at most `VOCABULARY` tokens; like Llama's it puts BOS (0) in front."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[SPECIAL], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(vocabulary_text.splitlines(), trainer)
    backend.post_processor = processors.TemplateProcessing(single=f"{SPECIAL} $A", special_tokens=[(SPECIAL, 0)])
    names = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), SPECIAL)
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=CONTEXT, **names)
