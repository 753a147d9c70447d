"""One look for all figures: colours fixed by name, and names for readers.

Colours are those of Okabe and Ito (2008), which every common kind of colour blindness can tell apart; line styles and
markers say the same once more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from actspace.errors import StudyError
from actspace.perturbations.families import Family, parse_base, parse_direction
from actspace.probes import names

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#6E6E6E"

COLOURS = {
    # dictionary families
    **dict.fromkeys(("kmeans", "kmeans_unit", "kmeans_nearest", "kmeans_spherical"), VERMILLION),
    **dict.fromkeys(("pca_kmeans", "pca_kmeans_unit", "pca_kmeans_nearest", "pca_kmeans_spherical"), BLACK),
    **{"random_points": SKY, "token_identity": PURPLE, "random_directions": GREEN},
    **{"pca": GREY, "topk": BLUE, "l1": GREEN},
    **{"batch_topk": SKY, "jumprelu": PURPLE, "matryoshka": ORANGE, "given": BLACK},
    # probes, and the directions of the toy
    **{"logistic_regression": BLUE, "mass_mean": VERMILLION, "mass_mean_covariance": GREEN, "shuffled_labels": GREY},
    **{"logistic_regression_no_bias": BLUE, "logistic_regression_adamw": BLUE, "mass_mean_pseudo_inverse": GREEN},
    **{"ccs": SKY, "ttpd": ORANGE, "random_direction": BLACK, "chance": BLACK},
    **{
        "shuffled_logistic_regression": PURPLE,
        "theta": BLACK,
        "nuisance": GREY,
        "sigma_inv_theta": SKY,
        "diag_inv_theta": ORANGE,
    },
    # bases, and directions from a real base
    **{"real": ORANGE, "covariance_random": BLUE, "isotropic_random": PURPLE},
    **{"toward_real": ORANGE, "toward_covariance_random": BLUE, "isotropic": PURPLE},
    **{"real_mixture": VERMILLION, "covariance_mixture": GREEN},
    # bases and directions made from fits
    **{"plus_latents": GREEN, "minus_latents": VERMILLION, "reconstruction": SKY},
    **{"synthetic_single": GREY, "synthetic_composite": PURPLE, "synthetic_sparsity_matched": BLACK},
    **{"decoder_active": SKY, "decoder_inactive": BLACK, "decoder_dead": GREY, "reconstruction_error": GREEN},
    **{"cluster_difference": VERMILLION, "principal_component": PURPLE},
}
MARKERS = {"kmeans": "o", "pca": "s", "topk": "^", "l1": "D", "batch_topk": "v", "jumprelu": "P", "matryoshka": "X"}
MARKERS |= {"given": "*", "random_points": ".", "token_identity": "*", "random_directions": "1"}
MARKERS |= {"kmeans_unit": "<", "kmeans_nearest": ">", "kmeans_spherical": "*"}
MARKERS |= {"pca_kmeans": "o", "pca_kmeans_unit": "<", "pca_kmeans_nearest": ">", "pca_kmeans_spherical": "*"}
DASHES = {
    **{"real_mixture": "--", "covariance_mixture": "--", "isotropic": ":", "isotropic_random": ":"},
    **{"mass_mean": "--", "mass_mean_covariance": "-.", "shuffled_labels": ":", "shuffled_logistic_regression": ":"},
    **{"logistic_regression_no_bias": "--", "logistic_regression_adamw": "-.", "mass_mean_pseudo_inverse": "--"},
    **{"random_direction": ":"},
    **{"sigma_inv_theta": "--", "diag_inv_theta": "-.", "nuisance": ":"},
}
MINUS, SEVERAL, MINUS_SEVERAL = "--", "-.", (0, (5, 1, 1, 1, 1, 1))
"""Line styles of a direction turned round, of several latents at once, and of both; a probe's is as of several."""
LABELS = {
    **{"random_points": "random data points", "token_identity": "mean by token"},
    **{"kmeans_unit": "k-means, unit centroids", "kmeans_nearest": "k-means, nearest projected"},
    **{"kmeans_spherical": "spherical k-means", "pca_kmeans": "PCA, then k-means"},
    **{"pca_kmeans_unit": "PCA, then unit centroids", "pca_kmeans_nearest": "PCA, then nearest projected"},
    **{"pca_kmeans_spherical": "PCA, then spherical k-means"},
    **{"kmeans": "k-means", "pca": "PCA", "topk": "TopK SAE", "l1": "L1 SAE", "batch_topk": "BatchTopK SAE"},
    **{"jumprelu": "JumpReLU SAE", "matryoshka": "Matryoshka SAE", "given": "given SAE"},
    **{"logistic_regression": "logistic regression", "mass_mean": "mass-mean", "shuffled_labels": "shuffled labels"},
    **{"mass_mean_covariance": "mass-mean with covariance", "shuffled_logistic_regression": "LR on shuffled data"},
    **{"logistic_regression_no_bias": "LR without bias", "logistic_regression_adamw": "LR by AdamW, without bias"},
    **{"mass_mean_pseudo_inverse": "mass-mean, pseudo-inverse", "ccs": "CCS", "ttpd": "TTPD"},
    **{"theta": "truth θ", "sigma_inv_theta": "Σ⁻¹θ", "diag_inv_theta": "diag(Σ)⁻¹θ", "nuisance": "nuisance direction"},
    **{"real": "real", "covariance_random": "covariance-random", "isotropic_random": "isotropic-random"},
    **{"toward_real": "towards real", "toward_covariance_random": "towards covariance-random"},
    **{"real_mixture": "real mixture", "covariance_mixture": "covariance mixture", "isotropic": "isotropic"},
    **{"plus_latents": "real plus one latent", "minus_latents": "real minus one latent"},
    **{
        "synthetic_single": "single-latent synthetic",
        "synthetic_composite": "composite synthetic",
        "synthetic_sparsity_matched": "sparsity-matched synthetic",
    },
    **{"decoder_active": "active latent", "decoder_inactive": "inactive latent", "decoder_dead": "dead latent"},
}
CENTRINGS = {"train_mean": "", "none": ", not centred", "per_dataset": ", centred by set"}
PLURALS = {
    **{"plus_latents": "real plus {} latents", "minus_latents": "real minus {} latents"},
    **{"decoder_active": "{} active latents", "decoder_inactive": "{} inactive latents"},
    **{"decoder_dead": "{} dead latents"},
}
RC: dict[Any, Any] = {
    "svg.fonttype": "none",  # text as text: it can be searched and read out, and is a tenth of its outlines' size
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
    "text.parse_math": False,  # names from a config may hold a dollar sign
    "figure.dpi": 100,
    "savefig.dpi": 120,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.edgecolor": "#888888",
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
}
FONTS = "'DejaVu Sans',Verdana,sans-serif"
"""In an SVG. Where DejaVu Sans is missing, texts are as wide (Verdana) or narrower."""
WIDTH = 7.2  # inches, 183 mm: both columns of a journal, or a page


def colour(name: str) -> str:
    """Return the one colour of a family, probe, base or direction; grey for a name that is not known here.

    Either sign and any number of latents share it, and a probe's direction has the colour of the probe.
    """
    family = _family(name)
    return COLOURS.get(name) or COLOURS.get(_kind_of_probe(family.probe or family.kind), GREY)


def dash(name: str) -> Any:
    """Return the line style of a probe, base or direction."""
    family = _family(name)
    several = family.count > 1 or bool(family.probe)
    if family.sign < 0:
        return MINUS_SEVERAL if several else MINUS
    return SEVERAL if several else DASHES.get(name) or DASHES.get(_kind_of_probe(name), "-")


def label(name: str) -> str:
    """Return a name as readers see it; an unknown one with its underscores as spaces."""
    family = _family(name)
    if family.probe:
        found = f"{label(family.probe)} probe"
    elif family.count > 1:
        found = PLURALS[family.kind].format(family.count)
    else:
        found = LABELS.get(family.kind) or _label_of_probe(family.kind)
    return f"minus {found}" if family.sign < 0 else found


def _kind_of_probe(name: str) -> str:
    """Return a probe's name without its C and its centring; any other name as it is."""
    with suppress(StudyError):
        return names.parse(name).kind
    return name


def _label_of_probe(name: str) -> str:
    """Write out the C and the centring of a probe's name; of any other name, blanks for underscores."""
    plain = name.replace("_", " ")
    with suppress(StudyError):
        probe = names.parse(name)
        of_kind = LABELS.get(probe.kind, probe.kind.replace("_", " "))
        return of_kind + (f", C = {probe.C:g}" if probe.C else "") + CENTRINGS[probe.centring]
    return plain


def _family(name: str) -> Family:
    """Take the name of a base or direction apart; any other name is its own kind."""
    for parse in (parse_base, parse_direction):
        with suppress(StudyError):
            return parse(name)
    return Family(name, name)


def logarithmic(ax: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic with plain numbers at its ticks; powers would need mathematical text, which is off."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    ax.set(**{f"{which}scale": "log"})
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


@contextmanager
def theme() -> Iterator[None]:
    """Draw with the look of the report; settings outside stay as they are."""
    with mpl.rc_context({**sns.axes_style("whitegrid"), **RC}):
        yield


def shades(colour: str, n: int) -> list[str]:
    """Return n shades of a colour, from a pale one to itself."""
    # Two steps more than shades, as the palest vanish on white.
    return [to_hex(shade) for shade in sns.light_palette(colour, n + 2)[2:]]
