"""Dictionaries as users meet them: codes, reconstructions and files."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from actspace.dictionaries import base
from actspace.errors import StudyError

D_MODEL, LATENTS = 6, 20
PACKAGE = Path(base.__file__).parents[2]


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sae_tensors():
    return {
        "W_enc": gaussian(D_MODEL, LATENTS, seed=1),
        "b_enc": gaussian(LATENTS, seed=2),
        "W_dec": gaussian(LATENTS, D_MODEL, seed=3),
        "b_dec": gaussian(D_MODEL, seed=4),
    }


def prefixed_tensors():
    components = torch.linalg.qr(gaussian(D_MODEL, 2))[0].T.contiguous()
    centroids = gaussian(LATENTS, D_MODEL)
    rest = centroids - centroids @ components.T @ components
    return {"centroids": rest, "components": components, "mean": gaussian(D_MODEL, seed=1)}


def dictionaries():
    return [
        base.KMeans({"centroids": gaussian(LATENTS, D_MODEL)}),
        base.SphericalKMeans({"centroids": torch.nn.functional.normalize(gaussian(LATENTS, D_MODEL))}),
        base.UnitKMeans({"centroids": gaussian(LATENTS, D_MODEL), "mean": gaussian(D_MODEL)}),
        base.NearestKMeans({"centroids": gaussian(LATENTS, D_MODEL), "mean": gaussian(D_MODEL)}),
        base.PrefixedKMeans(prefixed_tensors(), variant="kmeans_nearest"),
        base.TokenIdentity({"centroids": gaussian(LATENTS, D_MODEL), "token_ids": torch.arange(-1, LATENTS - 1)}),
        base.PCA({"components": torch.linalg.qr(gaussian(D_MODEL, 3))[0].T.contiguous(), "mean": gaussian(D_MODEL)}),
        base.TopK(sae_tensors(), k=4),
        base.L1(sae_tensors()),
        base.JumpReLU(sae_tensors() | {"threshold": gaussian(LATENTS, seed=5).abs()}),
        base.BatchTopK(sae_tensors() | {"threshold": torch.full((LATENTS,), 0.3)}, k=3),
        base.Matryoshka(sae_tensors() | {"threshold": torch.full((LATENTS,), 0.3)}, k=3, widths=[5, 20]),
    ]


@pytest.fixture(params=dictionaries(), ids=lambda d: d.family)
def dictionary(request):
    return request.param


def test_kmeans_encodes_the_nearest_centroid_and_decodes_it():
    dictionary = base.KMeans({"centroids": gaussian(LATENTS, D_MODEL)})
    x = gaussian(50, D_MODEL, seed=5)
    codes = dictionary.encode(x)
    nearest = torch.cdist(x, dictionary.centroids).argmin(1)
    assert torch.equal(codes.indices[:, 0], nearest)
    assert torch.equal(codes.values, torch.ones(50, 1))
    assert torch.equal(dictionary.decode(codes), dictionary.centroids[nearest])


def test_kmeans_finds_the_nearest_centroid_far_from_the_origin():
    centroids = gaussian(LATENTS, D_MODEL) + 1e4
    x = gaussian(200, D_MODEL, seed=5) + 1e4
    nearest = torch.cdist(x.double(), centroids.double()).argmin(1)
    found = base.KMeans({"centroids": centroids}).encode(x).indices[:, 0]
    assert (found == nearest).float().mean() == 1


def test_topk_keeps_the_largest_positive_pre_activations_of_the_saelens_formula():
    tensors, x = sae_tensors(), gaussian(30, D_MODEL, seed=5)
    p = (x - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]
    latents = torch.where(p >= p.sort(descending=True).values[:, [3]], p, 0.0).relu()
    torch.testing.assert_close(base.TopK(tensors, k=4)(x), latents @ tensors["W_dec"] + tensors["b_dec"])


def test_topk_has_inactive_entries_where_fewer_than_k_are_positive():
    tensors = sae_tensors() | {"b_enc": torch.full((LATENTS,), -1e6)}
    codes = base.TopK(tensors, k=4).encode(gaussian(5, D_MODEL))
    assert torch.equal(codes.values, torch.zeros(5, 4))


def test_l1_keeps_every_positive_pre_activation():
    tensors, x = sae_tensors(), gaussian(30, D_MODEL, seed=5)
    latents = ((x - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]).relu()
    dictionary = base.L1(tensors)
    torch.testing.assert_close(dictionary(x), latents @ tensors["W_dec"] + tensors["b_dec"])
    assert torch.equal((dictionary.encode(x).values > 0).sum(1), (latents > 0).sum(1))


def test_decoding_by_rows_equals_the_dense_product():
    indices = torch.stack([torch.randperm(LATENTS, generator=torch.Generator().manual_seed(n))[:5] for n in range(8)])
    codes, rows = base.Codes(indices, gaussian(8, 5)), gaussian(LATENTS, D_MODEL, seed=2)
    dense = torch.zeros(8, LATENTS).scatter(1, indices, codes.values) @ rows
    torch.testing.assert_close(base.combine(codes, rows), dense)
    torch.testing.assert_close(base.combine(codes, rows[: indices.max() + 1]), dense)


def test_encoding_in_chunks_changes_nothing(dictionary, monkeypatch):
    x, tokens = gaussian(23, D_MODEL, seed=6), torch.arange(23)
    whole = dictionary(x, tokens)
    monkeypatch.setattr(base, "SCORES_AT_ONCE", 5 * dictionary.n_latents)
    torch.testing.assert_close(dictionary(x, tokens), whole)


def test_half_precision_activations_are_encoded_in_the_dictionarys_dtype(dictionary):
    x, tokens = gaussian(4, D_MODEL).half(), torch.arange(4)
    assert torch.equal(dictionary(x, tokens), dictionary(x.float(), tokens))


def test_a_dictionary_survives_saving(dictionary, tmp_path):
    path, x, tokens = tmp_path / "fit", gaussian(10, D_MODEL), torch.arange(10)
    base.save(dictionary, path, {"study": "s"})
    loaded = base.load(path)
    assert type(loaded) is type(dictionary)
    assert (loaded.d_model, loaded.n_latents) == (dictionary.d_model, dictionary.n_latents)
    assert torch.equal(loaded(x, tokens), dictionary(x, tokens))
    assert base.read_metadata(path) == {"study": "s"}
    assert loaded.settings == dictionary.settings
    names = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file())
    assert names == (["fit/cfg.json", "fit/sae_weights.safetensors"] if isinstance(dictionary, base.SAE) else ["fit"])


@pytest.mark.parametrize("file", ["", "cfg.json", "sae_weights.safetensors"])
def test_equal_dictionaries_give_equal_files(tmp_path, file):
    made = base.TopK(sae_tensors(), k=4) if file else base.KMeans({"centroids": gaussian(LATENTS, D_MODEL)})
    for name in ("one", "two"):
        base.save(made, tmp_path / name, {key: key for key in "abcdefgh"})
    assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_fit_is_named_by_its_file_or_its_folder(tmp_path):
    base.save(base.L1(sae_tensors()), tmp_path / "l1-n20-c1-s0", {})
    base.save(base.KMeans({"centroids": gaussian(LATENTS, D_MODEL)}), tmp_path / "kmeans-k20-s0.safetensors", {})
    files = [str(path) for path in tmp_path.rglob("*.*") if path.is_file()]
    assert {name: fit.family for name, fit in base.load_fits(files).items()} == {
        "l1-n20-c1-s0": "l1",
        "kmeans-k20-s0": "kmeans",
    }


def test_using_a_fit_imports_no_fitting_code():
    code = (
        f"import sys; sys.path.insert(0, {str(PACKAGE)!r}); from actspace.dictionaries import base, metrics;"
        "sys.exit(any(m.startswith(('sklearn', 'transformers', 'actspace.dictionaries.sae.')) for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_loading_no_safetensors_file_says_so(tmp_path):
    path = tmp_path / "fit.safetensors"
    path.write_text("not a dictionary")
    with pytest.raises(StudyError, match="cannot be read as a safetensors file"):
        base.load(path)
    with pytest.raises(StudyError, match=r"absent.*cannot be read"):
        base.load(tmp_path / "absent")


def test_loading_foreign_safetensors_says_so(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign")
    with pytest.raises(StudyError, match="no dictionary of a known family"):
        base.load(tmp_path / "foreign")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [({"W_enc": torch.zeros(2, 3)}, "needs the tensors"), (sae_tensors() | {"b_dec": torch.zeros(9)}, "b_dec has the")],
)
def test_tensors_that_make_no_dictionary_are_refused(tensors, message):
    with pytest.raises(StudyError, match=message):
        base.L1(tensors)


def test_a_damaged_header_is_reported_with_the_file(tmp_path):
    dictionary = base.Matryoshka(sae_tensors() | {"threshold": torch.zeros(LATENTS)}, k=3, widths=[5, 20])
    dictionary.settings = {"k": 3}
    base.save(dictionary, tmp_path / "fit", {})
    with pytest.raises(StudyError, match=r"fit: damaged.*'widths'"):
        base.load(tmp_path / "fit")


def test_activations_of_another_width_are_refused(dictionary):
    with pytest.raises(StudyError, match="made for d_model 6, got activations of shape"):
        dictionary.encode(torch.zeros(2, D_MODEL + 1), torch.zeros(2, dtype=torch.int64))


CENTROIDS = torch.tensor([[4.0, 1], [1, 3]])
MEAN = torch.tensor([1.0, 1])  # so the directions are the two axes


@pytest.mark.parametrize(
    ("kind", "x", "latent", "expected"),
    [
        (base.UnitKMeans, [3, 4], 1, [1, 4]),  # projections 2 and 3
        (base.NearestKMeans, [3, 4], 1, [1, 4]),  # squared distances 10 and 5
        (base.UnitKMeans, [3, 2.5], 0, [3, 1]),  # projections 2 and 1.5
        (base.NearestKMeans, [2, 2.5], 1, [1, 2.5]),  # squared distances 6.25 and 1.25
        (base.UnitKMeans, [0, 0], 0, [1, 1]),  # no projection is positive: the mean
    ],
)
def test_projections_on_the_directions_of_centroids(kind, x, latent, expected):
    dictionary = kind({"centroids": CENTROIDS, "mean": MEAN})
    codes = dictionary.encode(torch.tensor([x], dtype=torch.float32))
    assert codes.indices.tolist() == [[latent]] or codes.values.item() == 0
    assert dictionary.decode(codes).tolist() == [expected]


def test_a_prefix_leaves_its_own_part_and_the_rest_to_the_centroids():
    tensors = {"centroids": torch.tensor([[0.0, 2, 0], [0, 0, 5]]), "mean": torch.ones(3)}
    dictionary = base.PrefixedKMeans({**tensors, "components": torch.tensor([[1.0, 0, 0]])}, variant="kmeans")
    codes = dictionary.encode(torch.tensor([[8.0, 1, 5]]))
    assert (codes.indices.tolist(), codes.values.tolist()) == ([[0, 2]], [[7, 1]])
    assert dictionary.decode(codes).tolist() == [[8, 1, 6]]
