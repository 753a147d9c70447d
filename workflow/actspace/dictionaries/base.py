"""What every dictionary is: activations to sparse codes and back, and how it is saved.

SAEs are saved as folders in the format of SAELens, all other families as one safetensors file. Reading and using a fit
needs this module alone; nothing here fits anything.
Source: methods reference, 1.2 (K1 to K4) and 1.3; names and pre-activation as in SAELens (`apply_b_dec_to_input`)."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from actspace import provenance
from actspace.dictionaries import layout, saelens
from actspace.errors import StudyError

HEADER = "actspace"
SCORES_AT_ONCE = 2**24  # (row, latent) scores held at a time while encoding: 64 MiB in float32


class Codes(NamedTuple):
    """Sparse codes: row n is the sum over its columns j of `values[n, j]` times the decoder row `indices[n, j]`.

    `indices` is int64 and `values` floating, both of shape (row, active). A zero value is an inactive latent, whatever
    its index.
    """

    indices: Tensor
    values: Tensor


class Dictionary(nn.Module, ABC):
    """Latents that activations are written in.

    The tensors are buffers named as in `shapes` and stored in the file under these names; `settings` holds the rest.
    """

    family: ClassVar[str]
    shapes: ClassVar[dict[str, tuple[str, ...]]]
    needs_tokens: ClassVar[bool] = False
    """Whether codes depend on the tokens of the rows and not on the activations: what has no token has no code."""

    def __init__(self, tensors: dict[str, Tensor], **settings: Any):
        super().__init__()
        sizes = check_shapes(self.family, self.shapes, tensors)
        self.d_model, self.n_latents = sizes["d_model"], sizes["latent"]
        self.settings = settings
        for name in self.shapes:
            self.register_buffer(name, tensors[name].detach())

    @abstractmethod
    def encode_rows(self, x: Tensor) -> Codes:
        """Encode rows (row, d_model) of the buffers' dtype, all at once."""

    @abstractmethod
    def decode(self, codes: Codes) -> Tensor:
        """Reconstruct activations (row, d_model) from codes, in the units of the activations."""

    def encode(self, x: Tensor, token_ids: Tensor | None = None) -> Codes:
        """Encode activations (row, d_model) of any floating dtype, holding few (row, latent) scores at a time.

        Only a dictionary that `needs_tokens` looks at the `token_ids` (row,).

        Raises
        ------
        StudyError
            If the activations have another width than the dictionary, or it needs tokens and gets none.
        """
        self.check_width(x)
        step = max(1, SCORES_AT_ONCE // self.n_latents)
        return join_codes([self.encode_rows(rows) for rows in x.to(next(self.buffers())).split(step)])

    def forward(self, x: Tensor, token_ids: Tensor | None = None) -> Tensor:
        """Reconstruct activations (row, d_model): decode what `encode` finds."""
        return self.decode(self.encode(x, token_ids))

    def check_width(self, x: Tensor) -> None:
        """Refuse what is not activations (row, d_model) of the dictionary's width."""
        if x.ndim != 2 or x.shape[1] != self.d_model:
            raise StudyError(
                f"{self.family} dictionary: made for d_model {self.d_model}, got activations of shape {tuple(x.shape)}"
            )


class KMeans(Dictionary):
    """Centroids: the one active latent of a row is its nearest centroid, with the value 1 (K1 in the reference)."""

    family = "kmeans"
    shapes: ClassVar = {"centroids": ("latent", "d_model")}
    centroids: Tensor

    def encode_rows(self, x: Tensor) -> Codes:
        """Find the nearest centroid of each row."""
        indices = nearest(x, self.centroids)[:, None]
        return Codes(indices, torch.ones_like(indices, dtype=x.dtype))

    def decode(self, codes: Codes) -> Tensor:
        """Return the centroids that the codes name, scaled by the codes' values."""
        return combine(codes, self.centroids)


class SphericalKMeans(Dictionary):
    """Unit centroids: the active latent has the largest cosine with a row, its value is the row's projection (K3)."""

    family = "kmeans_spherical"
    shapes: ClassVar = {"centroids": ("latent", "d_model")}
    centroids: Tensor

    def encode_rows(self, x: Tensor) -> Codes:
        """Project each row on the unit centroid that it has the largest scalar product with."""
        values, indices = (x @ self.centroids.T).max(1, keepdim=True)
        return Codes(indices, values)

    def decode(self, codes: Codes) -> Tensor:
        """Return the unit centroids that the codes name, as long as the codes' values."""
        return combine(codes, self.centroids)


class UnitKMeans(Dictionary):
    """Directions from the mean to the centroids, as a TopK SAE with k = 1: largest projection, if positive (K2)."""

    family = "kmeans_unit"
    shapes: ClassVar = {"centroids": ("latent", "d_model"), "mean": ("d_model",)}
    centroids: Tensor
    mean: Tensor

    @property
    def units(self) -> Tensor:
        """Unit vectors (latent, d_model) from the mean to the centroids; zero for a centroid at the mean."""
        return functional.normalize(self.centroids - self.mean, dim=1)

    def encode_rows(self, x: Tensor) -> Codes:
        """Choose the direction on which a row, less the mean, is longest."""
        values, indices = ((x - self.mean) @ self.units.T).max(1, keepdim=True)
        return Codes(indices, values.relu())

    def decode(self, codes: Codes) -> Tensor:
        """Add the directions that the codes name to the mean, as long as the codes' values."""
        return combine(codes, self.units) + self.mean


class NearestKMeans(UnitKMeans):
    """The same directions and values, but of the nearest centroid: a nonlinear encoder (K2' in the reference)."""

    family = "kmeans_nearest"

    def encode_rows(self, x: Tensor) -> Codes:
        """Project each row, less the mean, on the direction of its nearest centroid."""
        indices = nearest(x, self.centroids)
        values = ((x - self.mean) * self.units[indices]).sum(1, keepdim=True)
        return Codes(indices[:, None], values.relu())


class PrefixedKMeans(Dictionary):
    """Leading principal components kept exactly, and k-means on what they leave (K4): p + 1 active latents of p + K.

    `variant` is the family that reads the rest out. The centroids are orthogonal to the components, around zero.
    """

    family = "pca_kmeans"
    shapes: ClassVar = {
        "centroids": ("latent", "d_model"),
        "components": ("component", "d_model"),
        "mean": ("d_model",),
    }
    centroids: Tensor
    components: Tensor
    mean: Tensor

    def __init__(self, tensors: dict[str, Tensor], variant: str):
        super().__init__(tensors, variant=variant)
        self.prefix = len(self.components)
        self.n_latents += self.prefix

    @property
    def rest(self) -> Dictionary:
        """The dictionary of what the components leave; a view of the same centroids."""
        kind = KMEANS[self.settings["variant"]]
        found = {"centroids": self.centroids, "mean": torch.zeros_like(self.mean)}
        return kind({name: found[name] for name in kind.shapes})

    def encode_rows(self, x: Tensor) -> Codes:
        """Project the rows on the components, and encode what is left."""
        x = x - self.mean
        values = x @ self.components.T
        rest = self.rest.encode_rows(x - values @ self.components)
        first = torch.arange(self.prefix, device=x.device).expand(len(x), -1)
        return Codes(torch.cat([first, rest.indices + self.prefix], 1), torch.cat([values, rest.values], 1))

    def decode(self, codes: Codes) -> Tensor:
        """Add the mean, the weighted components and what the rest decodes to; the order of latents in a code is free."""
        of_rest = codes.indices >= self.prefix
        values = codes.values
        rest = Codes((codes.indices - self.prefix).clamp(min=0), values.where(of_rest, 0))
        first = Codes(codes.indices.where(~of_rest, 0), values.where(~of_rest, 0))
        return self.mean + combine(first, self.components) + self.rest.decode(rest)


class TokenIdentity(KMeans):
    """Mean activations by token: the active latent of a row is its token's, with the value 1, whatever the activation.

    Latent 0 is the mean of all rows, for tokens without a latent; `token_ids` ascend, from -1 for that one.
    """

    family = "token_identity"
    needs_tokens = True
    shapes: ClassVar = {"centroids": ("latent", "d_model"), "token_ids": ("latent",)}
    token_ids: Tensor

    def encode(self, x: Tensor, token_ids: Tensor | None = None) -> Codes:
        """Look the latents of the tokens (row,) up."""
        self.check_width(x)
        if token_ids is None:
            raise StudyError(
                "token_identity dictionary: encodes tokens and not activations; give the tokens of the rows, or leave it out"
            )
        wanted = token_ids.to(self.token_ids)
        places = torch.searchsorted(self.token_ids, wanted).clamp(max=self.n_latents - 1)
        indices = places.where(self.token_ids[places] == wanted, 0)[:, None]
        return Codes(indices, self.centroids.new_ones(indices.shape))


VARIANTS: tuple[type[Dictionary], ...] = (KMeans, UnitKMeans, NearestKMeans, SphericalKMeans)
KMEANS = {kind.family: kind for kind in VARIANTS}


class PCA(Dictionary):
    """Principal components around the mean: every latent is active, its value is the projection."""

    family = "pca"
    shapes: ClassVar = {"components": ("latent", "d_model"), "mean": ("d_model",)}
    components: Tensor
    mean: Tensor

    def encode_rows(self, x: Tensor) -> Codes:
        """Project the rows, less the mean, on the components."""
        values = (x - self.mean) @ self.components.T
        return Codes(torch.arange(self.n_latents, device=x.device).expand(len(x), -1), values)

    def decode(self, codes: Codes) -> Tensor:
        """Add the weighted components to the mean."""
        return combine(codes, self.components) + self.mean


class SAE(Dictionary):
    """A sparse autoencoder; subclasses say which pre-activations stay active."""

    shapes: ClassVar = {
        "W_enc": ("d_model", "latent"),
        "b_enc": ("latent",),
        "W_dec": ("latent", "d_model"),
        "b_dec": ("d_model",),
    }
    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor

    def pre_activations(self, x: Tensor) -> Tensor:
        """Return p = (x - b_dec) W_enc + b_enc of shape (row, latent)."""
        return torch.addmm(self.b_enc, x - self.b_dec, self.W_enc)

    def least_active(self, p: Tensor) -> Tensor:
        """Return what pre-activations p (row, latent) must reach to stay active, in a shape that p broadcasts with."""
        return p.new_zeros(1, self.n_latents)

    def decode(self, codes: Codes) -> Tensor:
        """Add the weighted decoder rows to b_dec."""
        return combine(codes, self.W_dec) + self.b_dec


class TopK(SAE):
    """The k largest pre-activations of a row stay active, as far as they are positive."""

    family = "topk"

    def __init__(self, tensors: dict[str, Tensor], k: int):
        super().__init__(tensors, k=k)
        if not 1 <= k <= self.n_latents:
            raise StudyError(f"topk: k is {k}, but must lie between 1 and the number of latents, {self.n_latents}")
        self.k = k

    def encode_rows(self, x: Tensor) -> Codes:
        """Keep the k largest of relu(p)."""
        values, indices = self.pre_activations(x).topk(self.k, sorted=False)
        return Codes(indices, values.relu())

    def least_active(self, p: Tensor) -> Tensor:
        """Return the k-th largest p of each row (row, 1), or zero where it is not positive."""
        return p.topk(self.k).values[:, -1:].relu()


class L1(SAE):
    """Every positive pre-activation stays active."""

    family = "l1"

    def encode_rows(self, x: Tensor) -> Codes:
        """Keep all of relu(p), in as many columns as the busiest row needs."""
        return widest(self.pre_activations(x).relu())


class JumpReLU(SAE):
    """Positive pre-activations above the threshold of their latent stay active, at their full value."""

    family = "jumprelu"
    shapes: ClassVar = SAE.shapes | {"threshold": ("latent",)}
    threshold: Tensor

    def encode_rows(self, x: Tensor) -> Codes:
        """Keep all of p that exceeds its threshold, in as many columns as the busiest row needs."""
        p = self.pre_activations(x).relu()
        return widest(p * (p > self.threshold))

    def least_active(self, p: Tensor) -> Tensor:
        """Return the threshold of each latent (1, latent), or zero where it is negative."""
        return self.threshold.relu()[None]


class BatchTopK(JumpReLU):
    """JumpReLU with one threshold for all latents, at which about k of them fire per row; k per row in training."""

    family = "batch_topk"

    def __init__(self, tensors: dict[str, Tensor], k: int):
        super().__init__(tensors, k=k)
        self.k = k


class Matryoshka(JumpReLU):
    """BatchTopK whose first latents, in prefixes of `widths`, reconstruct by themselves."""

    family = "matryoshka"

    def __init__(self, tensors: dict[str, Tensor], k: int, widths: list[int]):
        super().__init__(tensors, k=k, widths=widths)
        self.k, self.widths = k, widths


FITTED: tuple[type[Dictionary], ...] = (PrefixedKMeans, TokenIdentity, PCA, TopK, BatchTopK, Matryoshka, JumpReLU, L1)
EVERY = (*VARIANTS, *FITTED)
FAMILIES = {kind.family: kind for kind in EVERY}


def nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """Return the nearest of the centroids (latent, d_model) of each row (row, d_model): int64 of shape (row,)."""
    # ||x - c||^2 / 2 without its ||x||^2, around the centroids' mean: far from the origin the rest would cancel badly.
    middle = centroids.mean(0)
    centred = centroids - middle
    return torch.addmm(centred.square().sum(1) / 2, x - middle, centred.T, alpha=-1).argmin(1)


def widest(latents: Tensor) -> Codes:
    """Return the non-zero entries of latents (row, latent), none negative, in as many columns as the busiest row needs."""
    width = max(1, int(torch.count_nonzero(latents, dim=1).max())) if len(latents) else 1
    values, indices = latents.topk(width, sorted=False)
    return Codes(indices, values)


def combine(codes: Codes, rows: Tensor) -> Tensor:
    """Sum the decoder rows (latent, d_model) that the codes name, each times its value: (row, d_model)."""
    if 2 * codes.indices.shape[1] < len(rows):
        return functional.embedding_bag(codes.indices, rows, per_sample_weights=codes.values, mode="sum")
    # With most latents active the dense product is faster. Adding, not setting: inactive entries may repeat an index.
    dense = codes.values.new_zeros(len(codes.values), len(rows)).scatter_add_(1, codes.indices, codes.values)
    return dense @ rows


def join_codes(parts: list[Codes]) -> Codes:
    """Put codes of consecutive rows together; narrower ones are filled up with inactive entries."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.indices.shape[1] for part in parts)
    padded = [[functional.pad(tensor, (0, width - tensor.shape[1])) for tensor in part] for part in parts]
    return Codes(torch.cat([indices for indices, _ in padded]), torch.cat([values for _, values in padded]))


def check_shapes(family: str, shapes: dict[str, tuple[str, ...]], tensors: dict[str, Tensor]) -> dict[str, int]:
    """Return the size of each axis; a tensor that is absent, foreign or of the wrong shape raises a StudyError."""
    if set(tensors) != set(shapes):
        raise StudyError(
            f"{family} dictionary: needs the tensors {', '.join(sorted(shapes))}, "
            f"got {', '.join(sorted(tensors)) or 'none'}"
        )
    sizes: dict[str, int] = {}
    for name, axes in shapes.items():
        shape = tuple(tensors[name].shape)
        if len(shape) != len(axes) or any(
            sizes.setdefault(axis, size) != size for axis, size in zip(axes, shape, strict=True)
        ):
            raise StudyError(
                f"{family} dictionary: {name} has the shape {shape}, which is not ({', '.join(axes)}) of the others"
            )
    return sizes


def check_finite(x: Tensor, what: str, first_row: int = 0) -> None:
    """Raise a StudyError that names the first row of x (row, d_model) with a NaN or an infinity; x begins with `first_row`."""
    finite = torch.isfinite(x).all(dim=1)
    if not finite.all():
        row = first_row + int(finite.logical_not().nonzero()[0])
        raise StudyError(
            f"{what}: row {row} holds a NaN or an infinity; capture again, in float32 if the storage dtype overflowed"
        )


def save(dictionary: Dictionary, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a dictionary: an SAE as a folder in the format of SAELens, any other as one safetensors file.

    The file has the tensors by name, and family, settings and metadata in its header.
    Equal dictionaries give equal bytes. A file is complete or absent: it is written beside its place and then renamed.
    """
    if isinstance(dictionary, SAE):
        saelens.save(dictionary, path, {saelens.OURS: {"metadata": dict(metadata)}})
        return
    # One entry, because safetensors writes several in an order that changes from run to run.
    header = {"family": dictionary.family, "settings": dictionary.settings, "metadata": metadata}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in dictionary.named_buffers()}
    partial = Path(f"{path}.partial")
    save_file(tensors, partial, metadata={HEADER: json.dumps(header, sort_keys=True)})
    partial.replace(path)


def load(path: Path, device: str | torch.device = "cpu") -> Dictionary:
    """Read a dictionary that `save` wrote, or an SAE that SAELens saved.

    Parameters
    ----------
    path : Path
        A file; for an SAE its folder, or the weights in it.
    device : where its tensors are put

    Raises
    ------
    StudyError
        If nothing is there, it is no safetensors file, is not what its receipt says, does not hold a dictionary of a known family, or is an SAE that
        is not read (see `layout.check`).
    """
    family, settings, tensors = read(Path(path), device)
    kind = FAMILIES.get(family)
    if kind is None:
        raise StudyError(
            f"{path}: holds no dictionary of a known family ({', '.join(FAMILIES)}); was it made by actspace?"
        )
    try:
        return kind(tensors, **settings)
    except (StudyError, TypeError, KeyError) as error:
        raise StudyError(f"{path}: damaged or edited by hand ({error}); make it again") from error


def load_fits(paths: Iterable[str], device: str | torch.device = "cpu") -> dict[str, Dictionary]:
    """Read the dictionaries among the files of several fits, by the fits' names."""
    return {name_of(path): load(Path(path), device) for path in paths if path.endswith(".safetensors")}


def name_of(path: str | Path) -> str:
    """Name a fit by the path of its artifact: an SAE by its folder, any other by its file."""
    path = Path(path)
    return path.parent.name if path.name == layout.WEIGHTS else path.stem


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata that was given to `save`; raises StudyError as `load` does."""
    folder = sae_folder(Path(path))
    if folder is not None:
        return layout.check(folder)["metadata"].get(saelens.OURS, {}).get("metadata", {})
    return read_file(Path(path), "cpu")[0].get("metadata", {})


def read(path: Path, device: str | torch.device) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Return family (empty if unknown), settings and tensors of a dictionary."""
    folder = sae_folder(path)
    if folder is not None:
        found = saelens.read(folder, device)
        return found.family, found.settings, found.tensors
    header, tensors = read_file(path, device)
    return header.get("family", ""), header.get("settings", {}), tensors


def sae_folder(path: Path) -> Path | None:
    """Return the folder of an SAE, given by itself or by its weights; None for the file of another family."""
    if path.name == layout.WEIGHTS:
        return path.parent
    return path if path.is_dir() else None


def read_file(path: Path, device: str | torch.device) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return our header (empty if there is none) and all tensors of a safetensors file."""
    provenance.check(path)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise StudyError(f"{path}: cannot be read as a safetensors file ({error}); make it again") from error
