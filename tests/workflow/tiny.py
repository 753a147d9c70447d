"""A tiny study in a folder of its own: a copy of the workflow, a random two-layer checkpoint, made-up text, and every stage of the DAG."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import checkpoints
import saelens_folders

ROOT = Path(__file__).parents[2]
COPIED = ("Snakefile", "workflow", "profiles", "envs", "config")
TEXT = """the a cat dog city river of in on near house tree runs sleeps sees likes
old green small and but Paris Rome seven nine"""
WORDS = TEXT.split()
JOB_LINE = re.compile(r"^(\w+) +(\d+)$", re.MULTILINE)
REASON = re.compile(r"^ *(?:local)?rule (\w+):\n(?: +\w+: .*\n)*? +reason: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """Outcome of a Snakemake command."""

    code: int
    text: str

    @property
    def rules(self) -> Counter[str]:
        """Rules of the job table but `all`, with their numbers of jobs."""
        found = {name: int(count) for name, count in JOB_LINE.findall(self.text)}
        return Counter({name: count for name, count in found.items() if name not in ("total", "all")})

    @property
    def settings_changed(self) -> set[str]:
        """Rules of which a job is to run because its settings, or its code, are not those of its last run."""
        return {rule for rule, reason in REASON.findall(self.text) if "Params have changed" in reason}


class TinyStudy:
    """A folder with a study; commands run in it."""

    def __init__(self, folder: Path, architecture: str, small: bool = False) -> None:
        self.folder, self.architecture = folder, architecture
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, folder / name)
        checkpoints.make(architecture, folder / "model", " ".join(WORDS))
        saelens_folders.write(folder / "saes" / "blocks.0.hook_resid_post", **given_sae())
        (folder / "text.txt").write_text("\n".join(documents(160)))
        self.write(smaller(config(architecture)) if small else config(architecture))

    @property
    def results(self) -> Path:
        """Where the study's results lie."""
        return self.folder / "results" / "tiny"

    def config(self) -> dict[str, Any]:
        """Read the config back, to change it."""
        return yaml.safe_load((self.folder / "config" / "config.yaml").read_text())

    def write(self, settings: dict[str, Any]) -> None:
        """Write the config."""
        (self.folder / "config" / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))

    def snakemake(self, *arguments: str, **environment: str) -> Run:
        """Run Snakemake on two cores."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, env={**os.environ, **environment}
        )
        return Run(done.returncode, done.stdout + done.stderr)

    def plan(self, *arguments: str) -> Counter[str]:
        """Return what a dry run would run."""
        return self.dry_run(*arguments).rules

    def dry_run(self, *arguments: str) -> Run:
        """Let Snakemake plan."""
        run = self.snakemake("-n", *arguments)
        assert run.code == 0, run.text
        return run


def given_sae() -> dict[str, Any]:
    """Make an SAE with random weights that has to be folded: gated, with the bias not taken from the input."""
    weights = saelens_folders.tensors(checkpoints.D_MODEL, 48, names=("b_gate", "b_mag", "r_mag"))
    del weights["b_enc"]
    metadata = {"sae_lens_version": "6.54.12", "hook_name": "blocks.0.hook_resid_post"}
    return {"weights": weights, "architecture": "gated", "apply_b_dec_to_input": False, "metadata": metadata}


def documents(n: int) -> list[str]:
    """Make documents of made-up sentences."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, int(rng.integers(20, 60)))) + "." for _ in range(n)]


def config(architecture: str) -> dict[str, Any]:
    """Return the config of the tiny study: every stage, as small as it can be."""
    context = {"capture": "contexts", "hooks": ["blocks.0.hook_resid_post"]}
    sae = {"latents": [48], "vectors": 2000, "batch_size": 64}
    sweep = {"read": "blocks.1.hook_resid_post", "prompts": 5, "draws": 2}
    early = {"capture": "prompts", "sites": ["blocks.1.hook_resid_pre"], **sweep}
    return {
        "study": "tiny",
        "model": {
            "source": {"kind": "folder", "path": "model"},
            "gauge": "raw" if architecture == "llama" else "centred",
        },
        "compute": {"threads": 1},
        "corpus": {"sources": [{"kind": "file", "path": "text.txt", "format": "lines"}], "test_fraction": 0.3},
        "tokens": {
            "contexts": {"length": 16, "train": 100, "test": 40, "shards": 2},
            "prompts": {"length": 6, "train": 100, "test": 40, "per_document": 2},
        },
        "statements": {"truth": {"generated": ["cities", "comparisons"], "per_set": 40}},
        "concepts": {
            "sofas": {
                "kind": "unions",
                "parts": {"texture": ["soft", "hard"], "colour": "tableau", "furniture": ["bed", "desk"]},
            },
            "grades": {"kind": "intensity", "adjectives": ["cold", "old", "big", "sad"], "folds": 2},
        },
        "captures": {
            "sofas": {"tokens": "sofas", "hooks": ["blocks.{0..1}.hook_resid_post"], "positions": "last"},
            "grades": {"tokens": "grades", "hooks": ["blocks.{0..1}.hook_resid_post"], "positions": "last"},
            "contexts": {
                "tokens": "contexts",
                "hooks": ["blocks.0.hook_resid_post"],
                "select": {"first_position": 1, "norm_outliers": 10},
            },
            "statements": {
                "tokens": "truth",
                "hooks": ["blocks.0.hook_resid_pre", "blocks.{0..1}.hook_resid_post"],
                "positions": "last",
            },
            "prompts": {
                "tokens": "prompts",
                "hooks": ["blocks.1.hook_resid_pre"],
                "positions": "last",
                "storage": "float32",
            },
            "untrained": {
                "tokens": "prompts",
                "hooks": ["blocks.1.hook_resid_pre"],
                "positions": "last",
                "storage": "float32",
                "weights": "random",
            },
        },
        "dictionaries": {
            "residual": {
                **context,
                "kmeans": {"sizes": [4, 8]},
                "pca": {"ranks": [2]},
                "topk": {**sae, "k": [4]},
                "batch_topk": {**sae, "k": [4]},
                "matryoshka": {**sae, "k": [4]},
                "l1": {**sae, "coefficients": [1]},
                "given": {"gated": {"folder": "saes/{hook}"}},
                "null_families": {"gaussian": ["kmeans", "pca", "topk"]},
                "splice_sequences": 4,
            }
        },
        "probes": {
            "truth": {
                "capture": "statements",
                "splits": 3,
                "monitoring": {
                    "first": [{"probe": "mass_mean", "hook": "blocks.0.hook_resid_post"}],
                    "second": [{"probe": "logistic_regression", "hook": "blocks.1.hook_resid_post"}],
                    "false_positive_rates": [0.2],
                },
            }
        },
        "causal": {
            "directions": {
                "probes": "truth",
                "fits": ["logistic_regression", "mass_mean"],
                "sets": ["comparisons"],
                "hooks": ["blocks.{0..1}.hook_resid_post"],
                "statements": 6,
                "template": "{statement} is:",
                "answer_true": "T",
                "answer_false": "F",
                "shots": 0,
            }
        },
        "toy": {"d_model": 8, "points": 2000, "draws": 2},
        "regions": {
            "between_prompts": {
                "capture": "prompts",
                "sites": ["blocks.1.hook_resid_pre"],
                "read": "blocks.1.hook_resid_post",
                "prompts": 6,
                "clusters": 2,
                "steps": 11,
            }
        },
        "spikes": {
            "activations": {
                "dictionaries": "residual",
                "hook": "blocks.0.hook_resid_post",
                "fits": ["topk-n48-k4-s0", "kmeans-k4-s0", "given-gated"],
                "pairs": 8,
                "steps": 5,
            }
        },
        "toy_superposition": {"d_model": 16, "features": [8, 32], "active": 2, "k": 3, "pairs": 8, "steps": 5},
        "perturbations": {
            "plateaus": {
                **early,
                "bases": ["real", "covariance_random"],
                "directions": ["toward_covariance_random"],
                "paths": ["sphere", "straight"],
            },
            "plateaus_random_weights": {
                **early,
                "capture": "untrained",
                "bases": ["real", "covariance_random"],
                "directions": ["toward_covariance_random"],
            },
            "latents": {
                **sweep,
                "capture": "contexts",
                "sites": ["blocks.0.hook_resid_post"],
                "bases": ["real", "plus_latents_x2", "synthetic_composite"],
                "directions": ["decoder_active", "minus_decoder_active_x4", "cluster_difference", "probe_mass_mean"],
                "dictionary": {"study": "residual", "fit": "topk-n48-k4-s0"},
                "clusters": {"study": "residual", "fit": "kmeans-k4-s0"},
                "probe": "truth",
            },
            "sensitive_directions": {
                **early,
                "bases": ["real"],
                "directions": [
                    "toward_real",
                    "toward_covariance_random",
                    "isotropic",
                    "real_mixture",
                    "covariance_mixture",
                ],
            },
        },
        "optima": {
            "sensitivity_optima": {
                **{key: early[key] for key in ("capture", "sites", "read")},
                "prompts": 3,
                "resolution": 2,
                "subspaces": {"prompts": 2, "dimensions": [1, 2]},
            }
        },
        "planes": {
            "three_activations": {
                **{key: early[key] for key in ("capture", "sites", "read")},
                "prompts": 2,
                "resolution": 11,
            }
        },
    }


def smaller(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave the stages that depend on the architecture, with one or two members each."""
    dictionary = settings["dictionaries"]["residual"]
    del (
        dictionary["pca"],
        dictionary["l1"],
        dictionary["batch_topk"],
        dictionary["matryoshka"],
        dictionary["null_families"],
        settings["captures"]["untrained"],
        settings["perturbations"]["plateaus_random_weights"],
    )
    # What these start from is the same on every architecture; the engine is held to full passes on each in unit tests.
    for section in ("optima", "planes", "regions", "spikes", "toy_superposition", "concepts", "causal"):
        del settings[section]
    for capture in ("sofas", "grades"):
        del settings["captures"][capture]
    del settings["probes"]["truth"]["monitoring"]
    del settings["perturbations"]["latents"]
    dictionary["kmeans"]["sizes"] = [4]
    settings["tokens"]["contexts"]["shards"] = 1
    return settings
