"""The section on the archive of a study."""

from __future__ import annotations

from pydantic import Field

from actspace.config.fields import Strict


class Archive(Strict):
    """What `snakemake archive` packs into `results/<study>.zip`, and what it says of it."""

    activations: bool = Field(
        False,
        description="Whether stored activations, and surrogates drawn in their likeness, go along. Without them only their receipts do, "
        "and a change that needs them captures them again.",
    )
    authors: list[str] = Field(default_factory=list, description="Names of those who made the study.")
    license: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="Address of the licence of the results, for example `https://creativecommons.org/licenses/by/4.0/`; "
        "null: the archive says that none is given.",
    )
