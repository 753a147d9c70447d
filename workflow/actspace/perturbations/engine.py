"""Run a model on many versions of one activation at the last position, and reduce its output to a few numbers.

Only the last position is perturbed, so a prompt's prefix runs once; all perturbed vectors attend to its keys and values
in place, and enter at the site: the blocks below it do not run. `naive` is the slow way, a full pass with hooks; tests
hold the two together, and models whose attention is out of the ordinary fall back to it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from actspace.errors import StudyError
from actspace.hooks import FINAL_HOOK, check_gauge, check_hook, layer_of
from actspace.models import LanguageModel, to_gauge
from actspace.perturbations.attention import UnsupportedAttentionError, shared_prefix
from actspace.perturbations.naive import Call, hooked, naive, recorded_calls

log = logging.getLogger(__name__)

LOGITS_PER_LAUNCH = {"cpu": 2**25, "cuda": 2**29}
"""Rows of a launch times vocabulary, at most: 128 MB of float32 logits on a CPU, 2 GB on a GPU."""
NUMBERS_PER_REDUCTION = {"cpu": 2**18, "cuda": 2**26}
"""Logits that are turned into KL at once: 2 MB of float64, which a core's cache holds, or 512 MB on a GPU."""
AGREEMENT_NATS = {"full precision": 1e-7, "reduced precision": 0.02}
"""KL up to which the shared prefix must agree with the full pass when prompts are prepared: log-probabilities equal to
about 4e-4 in float32, to about 0.2 in half precision or TF32."""


@dataclass(frozen=True)
class Prompts:
    """Prompts of one length, with what all their perturbed versions have in common."""

    token_ids: Tensor
    """(prompt, token)"""
    prefix: list[tuple[Tensor, Tensor]]
    """For every layer, keys and values of all tokens but the last, (prompt, kv_head, token - 1, d_head); none in the
    fallback."""
    calls: list[Call]
    """For every layer, what its block is given at the last position besides the residual and the cache."""

    def __len__(self) -> int:
        return len(self.token_ids)

    def some(self, prompts: slice) -> Prompts:
        """Return some of the prompts; nothing is copied."""
        return Prompts(self.token_ids[prompts], [(k[prompts], v[prompts]) for k, v in self.prefix], self.calls)


@dataclass(frozen=True)
class Reference:
    """Output of the run that perturbed runs are compared with, one per prompt."""

    log_probs: Tensor
    """(prompt, vocabulary), float64, nats."""
    late: Tensor
    """(prompt, d_model), float64: the residual at the read-out hook, in the engine's gauge."""


@dataclass(frozen=True)
class Readout:
    """What perturbed runs did, against their prompt's reference; float64 of shape (prompt, row) each."""

    kl_base_pert_nats: Tensor
    js_nats: Tensor
    """Jensen-Shannon divergence; NaN unless the engine measures it."""
    top_token_changed: Tensor
    """1 where the most likely next token is another one, else 0."""
    l2_late: Tensor
    cosine_late: Tensor


class Engine:
    """Measure perturbed last-position activations of a model at one site.

    Parameters
    ----------
    model : LanguageModel
    site : str
        Hook point at which the residual of the last position is replaced: `blocks.{l}.hook_resid_pre` or `_post`.
    read_hook : str
        Later hook point at which L2 distance and cosine are read: one of these, or `ln_final.hook_normalized`.
    gauge : "raw" or "centred"
        Gauge of the read-outs. Vectors are given in the same gauge; in the centred one, theirs is the zero mean.
    jensen_shannon : bool
        Measure the Jensen-Shannon divergence too, which takes about as long again as the KL divergence.
    rows_per_launch : int or None
        Perturbed vectors that run at once; None chooses by vocabulary and kind of device. Halved when a GPU's memory
        does not suffice.
    shared : bool
        Share the prefix where the model allows it; False always takes the full pass.

    Attributes
    ----------
    token_passes : float
        Work so far: tokens times the blocks that they ran through, over all blocks of the model.
    shared : bool
        Whether the prefix is shared; settled when the first prompts are prepared.
    """

    def __init__(
        self,
        model: LanguageModel,
        site: str,
        read_hook: str = FINAL_HOOK,
        gauge: str = "raw",
        rows_per_launch: int | None = None,
        shared: bool = True,
        jensen_shannon: bool = False,
    ) -> None:
        check_gauge(gauge, model.normalization)
        check_hook(site, model.n_layers, "site")
        check_hook(read_hook, model.n_layers, "read_hook")
        if site == FINAL_HOOK:
            raise StudyError(f"site: '{site}' is no place to perturb; use blocks.{model.n_layers - 1}.hook_resid_post")
        self.model, self.site, self.read_hook, self.gauge = model, site, read_hook, gauge
        self.site_layer = layer_of(site, model.n_layers)
        self.read_layer = layer_of(read_hook, model.n_layers)
        if self.read_layer < self.site_layer:
            raise StudyError(f"read_hook: '{read_hook}' comes before the site '{site}'; choose a later one")
        self.vocabulary = int(model.hf.get_output_embeddings().weight.shape[0])
        budget = LOGITS_PER_LAUNCH.get(model.device.type, LOGITS_PER_LAUNCH["cpu"])
        self.rows_per_launch = rows_per_launch or max(1, budget // self.vocabulary)
        self.token_passes = 0.0
        self.shared, self.jensen_shannon = shared, jensen_shannon
        self._agreed_lengths: set[int] = set()

    def record(self) -> dict[str, Any]:
        """Say how the engine worked so far, for a receipt: device, token_passes, shared_prefix, rows_per_launch."""
        return {
            "device": str(self.model.device),
            "token_passes": self.token_passes,
            "shared_prefix": self.shared,
            "rows_per_launch": self.rows_per_launch,
        }

    @torch.no_grad()
    def prepare(self, token_ids: Tensor) -> Prompts:
        """Run the prompts once, and keep the keys and values of all their tokens but the last.

        Parameters
        ----------
        token_ids : int Tensor of shape (prompt, token)
            Prompts of one length, of one token or more.

        Returns
        -------
        Prompts
            For `reference` and `measure`.
        """
        ids = token_ids.to(self.model.device, torch.long)
        if self.shared:
            try:
                prompts = self._run_prefix(ids)
                self._check_agreement(prompts)
                return prompts
            except torch.OutOfMemoryError:
                raise
            except Exception as problem:  # an architecture that nobody foresaw fails in its own way
                self.shared = False
                log.warning(
                    "%s: no shared prefix (%s); each vector takes a full pass", type(self.model.hf).__name__, problem
                )
        return Prompts(ids, [], [])

    def reference(self, prompts: Prompts, bases: Tensor) -> Reference:
        """Run the bases (prompt, d_model) in their prompts: what the perturbed runs are compared with."""
        options: dict[str, Any] = {"dtype": torch.float64, "device": self.model.device}
        log_probs, late = (torch.empty(len(prompts), n, **options) for n in (self.vocabulary, self.model.d_model))

        def keep(some: slice, rows: slice, logits: Tensor, read: Tensor) -> None:
            log_probs[some], late[some] = logits[:, 0].double().log_softmax(-1), read[:, 0]

        self._run_all(prompts, bases[:, None], keep)
        return Reference(log_probs, late)

    def measure(self, prompts: Prompts, reference: Reference, vectors: Tensor) -> Readout:
        """Replace the last position's residual at the site by each vector, and compare the output with the reference.

        Parameters
        ----------
        prompts, reference
            From `prepare` and `reference`.
        vectors : float Tensor of shape (prompt, row, d_model)
            On any device, in any float dtype; they are cast to the model's when they run.

        Returns
        -------
        Readout
            On the model's device. KL(base || perturbed) over the whole vocabulary; rounding below zero is cut off.
        """
        options: dict[str, Any] = {"dtype": torch.float64, "device": self.model.device}
        shape = vectors.shape[:2]
        out = Readout(*(torch.full(shape, torch.nan, **options) for _ in range(5)))

        def compare(some: slice, rows: slice, logits: Tensor, late: Tensor) -> None:
            log_probs, base = reference.log_probs[some], reference.late[some, None]
            out.kl_base_pert_nats[some, rows] = kl_from_logits(log_probs, logits)
            if self.jensen_shannon:
                out.js_nats[some, rows] = js_from_logits(log_probs, logits)
            out.top_token_changed[some, rows] = (logits.argmax(-1) != log_probs.argmax(-1)[:, None]).double()
            out.l2_late[some, rows] = (late - base).norm(dim=-1)
            out.cosine_late[some, rows] = torch.cosine_similarity(late, base, dim=-1)

        self._run_all(prompts, vectors, compare)
        return out

    def outputs(self, prompts: Prompts, vectors: Tensor) -> Tensor:
        """Replace the last position's residual at the site by each vector, and return what the read-out hook sees.

        `vectors` has the shape (prompt, row, d_model), as in `measure`; so has the result, in float64 and in the
        engine's gauge.
        """
        found = torch.empty(*vectors.shape, dtype=torch.float64, device=self.model.device)

        def keep(some: slice, rows: slice, logits: Tensor, late: Tensor) -> None:
            found[some, rows] = late

        self._run_all(prompts, vectors, keep)
        return found

    @torch.no_grad()
    def _run_all(self, prompts: Prompts, vectors: Tensor, use: Callable[[slice, slice, Tensor, Tensor], None]) -> None:
        """Run vectors (prompt, row, d_model) launch by launch; give place, logits and late residual to `use`.

        A launch takes whole prompts while several fit, else a part of one. Its size is read anew each time, because
        running out of memory halves it.
        """
        n_rows, first, row = vectors.shape[1], 0, 0
        while first < len(prompts):
            together = max(1, self.rows_per_launch // n_rows) if self.shared else 1
            some, rows = slice(first, first + together), slice(row, row + self.rows_per_launch)
            try:
                logits, late = self._run(prompts.some(some), vectors[some, rows])
                use(some, rows, logits, late)
            except torch.OutOfMemoryError:
                self._halve()
                continue
            first, row = (some.stop, 0) if rows.stop >= n_rows else (first, rows.stop)

    def _halve(self) -> None:
        """Halve the rows of a launch after the device ran out of memory, or give up at one row."""
        if self.rows_per_launch == 1:
            raise StudyError("perturbations: not even one row fits into the device's memory; use a smaller model")
        self.rows_per_launch //= 2
        torch.cuda.empty_cache()
        log.warning("out of memory: going on with %d perturbed vectors at once", self.rows_per_launch)

    def _run(self, prompts: Prompts, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Run vectors (prompt, row, d_model); return logits (prompt, row, vocabulary), late (prompt, row, d_model)."""
        x = vectors.to(self.model.device, self.model.hf.dtype)
        if self.shared:
            logits, late = self._run_shared(prompts, x)
        else:
            runs = [
                naive(self.model, ids, v, self.site, self.read_hook)
                for ids, v in zip(prompts.token_ids, x, strict=True)
            ]
            logits, late = (torch.stack(part) for part in zip(*runs, strict=True))
            self.token_passes += x.shape[1] * prompts.token_ids.numel()
        return logits, to_gauge(late.double(), self.gauge)

    def _run_shared(self, prompts: Prompts, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Run vectors from the site on; they attend to the prefix of their prompt."""
        model, hidden, late = self.model, vectors, vectors
        with shared_prefix(model.hf):
            for layer in range(self.site_layer, model.n_layers):
                late = hidden if layer <= self.read_layer else late
                args, kwargs = prompts.calls[layer]
                hidden = _tensor(model.blocks[layer](hidden, *args, **kwargs, shared_prefix=prompts.prefix))
        late = hidden if self.read_layer == model.n_layers else late
        self.token_passes += vectors.shape[0] * vectors.shape[1] * (1 - self.site_layer / model.n_layers)
        return model.logits(hidden), model.normalized(late) if self.read_hook == FINAL_HOOK else late

    def _run_prefix(self, token_ids: Tensor) -> Prompts:
        """Run whole prompts; keep keys and values of all but the last token, and how blocks are called for that one."""
        body = self.model.hf.base_model
        cache = body(input_ids=token_ids, use_cache=True).past_key_values
        if any(layer.keys.shape[2] != token_ids.shape[1] for layer in cache.layers):
            raise UnsupportedAttentionError("its cache does not keep the whole prompt")
        prefix = [(layer.keys[:, :, :-1], layer.values[:, :, :-1]) for layer in cache.layers]
        last = token_ids[:1, -1:]
        position = torch.full_like(last, token_ids.shape[1] - 1)
        with recorded_calls(self.model.blocks) as calls:
            body(input_ids=last, position_ids=position, use_cache=False)
        self.token_passes += token_ids.numel() + 1
        return Prompts(token_ids, prefix, calls)

    def _check_agreement(self, prompts: Prompts) -> None:
        """Compare the shared prefix with the full pass on two vectors, once for each prompt length."""
        length = prompts.token_ids.shape[1]
        if length in self._agreed_lengths:
            return
        first = prompts.some(slice(0, 1))
        with hooked(self.model, self.site) as seen:
            self.model.hf.base_model(input_ids=first.token_ids, use_cache=False)
        vectors = torch.stack([seen[0][0, -1], seen[0][0, -1].flip(-1)])
        slow, _ = naive(self.model, first.token_ids[0], vectors, self.site, self.read_hook)
        fast, _ = self._run_shared(first, vectors[None])
        self.token_passes += (1 + len(vectors)) * length
        kl = kl_from_logits(slow.double().log_softmax(-1), fast[0, :, None]).max().item()
        if not kl <= AGREEMENT_NATS[self._precision()]:
            raise UnsupportedAttentionError(f"it disagrees with the full pass by {kl:.1e} nats")
        self._agreed_lengths.add(length)

    def _precision(self) -> str:
        """Say how exactly this model computes here, for the choice of a tolerance."""
        tf32 = self.model.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
        full = self.model.hf.dtype in (torch.float32, torch.float64) and not tf32
        return "full precision" if full else "reduced precision"


def kl_from_logits(base_log_probs: Tensor, logits: Tensor) -> Tensor:
    """Return KL(base || perturbed) in nats: sum_v p_v (log p_v - logit_v) + logsumexp(logit).

    Sums over a vocabulary would round a small KL away in float32; in float64, a few rows at a time, they are exact and,
    since those rows stay in the cache, no slower.

    Parameters
    ----------
    base_log_probs : float64 Tensor of shape (prompt, vocabulary)
    logits : float Tensor of shape (prompt, row, vocabulary)
        Of the perturbed runs; not normalised.

    Returns
    -------
    float64 Tensor of shape (prompt, row), not below zero
    """
    return _few_at_a_time(_kl, base_log_probs, logits).clamp_min(0)


def js_from_logits(base_log_probs: Tensor, logits: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence in nats: [KL(p || m) + KL(q || m)] / 2 with m = (p + q) / 2; at most log 2.

    Shapes and dtypes as in `kl_from_logits`.
    """
    return _few_at_a_time(_js, base_log_probs, logits).clamp_min(0)


Divergence = Callable[[Tensor], Tensor]
"""float64 logits (prompt, row, vocabulary) -> divergences (prompt, row) from fixed distributions of the prompts"""


def _few_at_a_time(divergence_from: Callable[[Tensor], Divergence], base_log_probs: Tensor, logits: Tensor) -> Tensor:
    """Apply a divergence from (prompt, vocabulary) to so many rows of (prompt, row, vocabulary) at once as fit a cache."""
    budget = NUMBERS_PER_REDUCTION.get(logits.device.type, NUMBERS_PER_REDUCTION["cpu"])
    together = max(1, budget // logits.shape[-1])
    prompts = min(together, len(logits))
    parts = []
    for base, some in zip(base_log_probs.split(prompts), logits.split(prompts), strict=True):
        divergence = divergence_from(base)
        parts.append(torch.cat([divergence(z.double()) for z in some.split(together // prompts, 1)], 1))
    return torch.cat(parts)


def _js(base_log_probs: Tensor) -> Divergence:
    log_p = base_log_probs[:, None]
    p = log_p.exp()

    def divergence(logits: Tensor) -> Tensor:
        log_q = logits.log_softmax(-1)
        log_m = torch.logaddexp(log_p, log_q) - math.log(2)
        return ((p * (log_p - log_m)).sum(-1) + (log_q.exp() * (log_q - log_m)).sum(-1)) / 2

    return divergence


def _kl(base_log_probs: Tensor) -> Divergence:
    p = base_log_probs.exp()
    minus_entropy = (p * base_log_probs).sum(-1)[:, None]
    return lambda logits: minus_entropy - torch.einsum("pv,prv->pr", p, logits) + logits.logsumexp(-1)


def _tensor(output: Any) -> Tensor:
    """Return the residual that a block puts out, alone or first of a tuple."""
    return output[0] if isinstance(output, tuple) else output
