"""The published sets of statements: where each lies, pinned by commit and, where it is known, by the file's sha256.

Sources: Marks & Tegmark, The Geometry of Truth (2023), github.com/saprmarks/geometry-of-truth; Bürger et al., Truth is
Universal (2024), github.com/sciai-lab/Truth_is_Universal. The second repository holds some files of the first under the
same or another name; those are fetched from the first.
"""

from __future__ import annotations

GEOMETRY_OF_TRUTH = "saprmarks/geometry-of-truth/a65a07fe38f27cbb4cc6f472b957fb3e53ef9f6d"
TRUTH_IS_UNIVERSAL = "sciai-lab/Truth_is_Universal/b16dadc6d63c3ac25086e238d7ebee762af2a188"
TRUTH_IS_UNIVERSAL_GERMAN = "sciai-lab/Truth_is_Universal/ce8d57babc51e6dd1db711de8686b355fcb4cb33"
SHA256_MARK = "#sha256="
"""Parts an address from the sha256 of the file that must lie there, as pip writes it."""

SHA256 = {
    "animal_class": "598ed996dd00dd6cddcf125fafad48ad7c4d827a91dfbd8202473354fdba0d97",
    "cities": "f2560a0c1758c69935b50125111b574b71896bb75930dd87b1d8c973c1fa086e",
    "cities_conj": "80e9987e8abcdd56ac8256d22b8ad6c2d6211e06a6c925c32cfcb0bc93d9d56d",
    "cities_disj": "b1502f41839d0e952a60705997156891a79b96c3a00ef6b51379eaa3ff22ef99",
    "common_claim_true_false": "1889b4793c2ebd13c767eea8b65ebd4a5c2da700567677d512097b495a262576",
    "element_symb": "2aa8da5696a1f0f0c4630b7a75949cf47e81254728be13c0f4e835ed6129a5a6",
    "facts": "303ec926c2710a13a6166e204a24ea013bb2991b8761e2899739fddcb923aee1",
    "inventors": "6990771f01efcbae18bfa3960facbe36c39199f850f407540548a9c04339084c",
    "larger_than": "406d6872e97910f3af5a031600d4932b5a567b8666e7545c8b446057471ad723",
    "neg_animal_class": "03676e51600e8357e4e200d08eca7c38952b07a5aef807d5aaefbedc7f257256",
    "neg_cities": "66c5c84de98ca15570138c205ab0e3907b57750083fac72a4eacafc3d9ebcea7",
    "neg_element_symb": "8ee4b64b38fe1e43fb0e794d5acf914f9af4f8a9a99f3df187bfd84f429ffa78",
    "neg_facts": "84c26b283996d4016d3a9b470f09a6b9fe721d9f68444893c060e3ea8419287a",
    "neg_inventors": "f275742ae02a1d2ca11e90d25753b2d3a90f4788f6399e22442cd7774b7db8a7",
    "neg_sp_en_trans": "bec33e37047135b15cdd18c0cb0c66b65fb435ace08910cbcc220ce1ef610c96",
    "smaller_than": "ee6b7cf668d7e0fb3f49a84ca8d510cb7e484ae029ef86ed238362e26ef61a44",
    "sp_en_trans": "9afa97c1b8af539a05f47655a80a5c7832c6fdb914885fd24cb4bcccbe2795b5",
}
"""Of the files of Truth is Universal, by set; the other files are pinned by the commit alone."""

_TOPICS = ("cities", "sp_en_trans", "element_symb", "animal_class", "inventors", "facts")
_FIRST_IN_GEOMETRY = {
    **{
        name: name for name in ("cities", "neg_cities", "sp_en_trans", "neg_sp_en_trans", "larger_than", "smaller_than")
    },
    **{name: name for name in ("common_claim_true_false", "counterfact_true_false")},
    "cities_conj": "cities_cities_conj",
}

SETS: dict[str, dict[str, tuple[str, str]]] = {
    "geometry_of_truth": {
        **{name: (GEOMETRY_OF_TRUTH, name) for name in _FIRST_IN_GEOMETRY.values()},
        "cities_cities_disj": (GEOMETRY_OF_TRUTH, "cities_cities_disj"),
        "companies_true_false": (GEOMETRY_OF_TRUTH, "companies_true_false"),
    },
    "truth_is_universal": {
        **{
            name: (TRUTH_IS_UNIVERSAL, name)
            for topic in _TOPICS
            for name in (topic, f"neg_{topic}", f"{topic}_conj", f"{topic}_disj")
        },
        **{
            f"{name}_de": (TRUTH_IS_UNIVERSAL_GERMAN, f"{name}_de")
            for topic in _TOPICS
            for name in (topic, f"neg_{topic}")
        },
        **{name: (GEOMETRY_OF_TRUTH, file) for name, file in _FIRST_IN_GEOMETRY.items()},
    },
}
"""Collection -> set -> repository with commit, and the name of the file there."""


def address(collection: str, name: str) -> str:
    """Return the https address of a published set, with the sha256 behind it where it is known."""
    place, file = SETS[collection][name]
    here = next((ours for ours, theirs in _FIRST_IN_GEOMETRY.items() if theirs == file), name)
    pin = f"{SHA256_MARK}{SHA256[here]}" if here in SHA256 else ""
    return f"https://raw.githubusercontent.com/{place}/datasets/{file}.csv{pin}"
