"""Print the exact pins of the environment that runs this, for requirements.txt."""

from importlib.metadata import distributions

HEADER = "# Exact pins, made by `make lock` from pyproject.toml. Platform wheels of torch (CPU, CUDA) share one public version."
LEFT_OUT = {"actspace", "pip", "setuptools", "wheel"}

pins = {d.metadata["Name"].lower().replace("_", "-"): d.version.split("+")[0] for d in distributions()}
print(HEADER, *(f"{name}=={version}" for name, version in sorted(pins.items()) if name not in LEFT_OUT), sep="\n")
