"""The engines by name: an explicit table, imported only when one is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from deployments.contracts import Engine
from deployments.engines.scaling import ReplicaSettings
from deployments.errors import OptionError
from deployments.weights.fetch import weights_folder


@dataclass(frozen=True)
class Entry:
    """Where an engine is, and what `lipsync models` says of it."""

    module: str
    attribute: str
    about: str
    takes: Literal["video", "image"] = "video"
    pictures: bool = False  # moves still pictures, too, as `lipsync portrait --engine NAME`
    picture_weights: str = ""  # in the folder of the weights, brought by the operator; without it no pictures are moved
    live: bool = False  # moves them while the sound is still coming: its module `stream`


ENGINES: dict[str, Entry] = {
    "video_rewrite": Entry(
        "deployments.engines.video_rewrite.engine",
        "VideoRewrite",
        "the person's own filmed mouths, found again and warped (Bregler, Covell, Slaney 1997); no training",
    ),
    "vasa1": Entry(
        "deployments.engines.vasa1.engine",
        "Vasa1",
        "after VASA-1: generated motion, drawn by a decoder that learns this person's mouth within minutes",
        pictures=True,
        live=True,
    ),
    "gaussian_splatting": Entry(
        "deployments.engines.gaussian_splatting.engine",
        "GaussianSplatting",
        "an avatar of 3-D Gaussians on the face mesh, fitted to this person (Kerbl et al. 2023, Qian et al. 2024)",
    ),
    "emo": Entry(
        "deployments.engines.emo.engine",
        "Emo",
        "after EMO, compact: latent diffusion of the mouth that hears the speech, fitted to this person within minutes",
        pictures=True,
        picture_weights="hallo2",
    ),
    "portrait": Entry(
        "deployments.engines.portrait.engine", "Portrait", "a still picture, warped; for `lipsync portrait`", takes="image"
    ),
    "fake": Entry("deployments.engines.fake.engine", "Fake", "paints a patch; for tests"),
}
HIDDEN = ("fake",)


def engine_names() -> tuple[str, ...]:
    """Names that a user may choose."""
    return tuple(name for name in ENGINES if name not in HIDDEN)


def engine_about() -> dict[str, str]:
    """One line on every engine that a user may choose."""
    return {name: ENGINES[name].about for name in engine_names()}


def moves_pictures(name: str) -> bool:
    """Whether the engine called `name` can move still pictures here: some need weights that an operator brings."""
    entry = _entry(name)
    return entry.pictures and (weights_folder() / entry.picture_weights).is_dir() if entry.picture_weights else entry.pictures


def replica_settings(name: str) -> ReplicaSettings:
    """How a server keeps the engine called `name`. Raises OptionError for an unknown one."""
    module = import_module(f"{_entry(name).module.rpartition('.')[0]}.deployment")
    settings: ReplicaSettings = module.DEPLOYMENT
    return settings


def get_engine(name: str) -> Engine:
    """The engine called `name`, fresh. Raises OptionError that lists the known ones."""
    entry = _entry(name)
    engine: Engine = getattr(import_module(entry.module), entry.attribute)()
    return engine


def _entry(name: str) -> Entry:
    if name not in ENGINES:
        raise OptionError(f"expected an engine of {', '.join(engine_names())}; got {name!r}; see `lipsync models`")
    return ENGINES[name]
