"""The list of model files: what each is, how it is recognised, where it comes from."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from deployments.errors import WeightsError

MANIFEST = Path(__file__).with_name("manifest.toml")


@dataclass(frozen=True)
class WeightsFile:
    """One model file of the manifest."""

    name: str
    about: str
    sha256: str
    size: int  # bytes
    licence: str
    sources: tuple[str, ...]  # tried in this order


def read_manifest(path: Path = MANIFEST) -> dict[str, WeightsFile]:
    """Read a manifest into `{name: file}`, in the order of the file.

    Raises WeightsError if two files share a name or a name is not a plain file name.
    """
    files: dict[str, WeightsFile] = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["file"]:
        item = WeightsFile(**{**entry, "sources": tuple(entry["sources"])})
        if item.name in files or Path(item.name).name != item.name:
            raise WeightsError(f"{path}: expected unique plain file names, got {item.name!r} (again); rename it")
        files[item.name] = item
    return files


def find(name: str, manifest: dict[str, WeightsFile]) -> WeightsFile:
    """The entry called `name`. Raises WeightsError that lists the known names."""
    if name not in manifest:
        raise WeightsError(f"expected one of {', '.join(manifest)}; got {name!r}; see `lipsync weights list`")
    return manifest[name]
