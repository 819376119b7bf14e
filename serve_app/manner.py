"""Whose way of moving the head a portrait takes: a fitted avatar's, found and checked before any work."""

from __future__ import annotations

from pathlib import Path

from deployments.contracts import Progress
from deployments.errors import InputError, OptionError
from serve_app.cache import whole_avatar
from serve_app.request import check_input

ENGINE = "vasa1"  # learns one, and moves portraits by it
MANNER_FILE = "manner.safetensors"
NONE = (
    "one that moves its head like everybody: its clip has too little speech, or shows no other manner; "
    "take a longer clip, or leave the manner out"
)


def check_manner(engine: str, avatar: Path) -> None:
    """Raise InputError, OptionError or WeightsError unless a portrait of the engine can move as the avatar's person.

    `avatar` is a fitted avatar's folder, or a clip of the person: that one is only looked for here.
    """
    if engine != ENGINE:
        raise OptionError(f"expected no manner with {engine}, got one; only portraits of {ENGINE} move in a person's own manner")
    from deployments.engines.vasa1.config import portrait_profile

    if portrait_profile() == "liveportrait":
        raise OptionError("expected no manner with LivePortrait's weights, got one; leave --manner out, or LIPSYNC_LIVEPORTRAIT")
    if not avatar.is_dir():
        check_input(avatar, "video or avatar")
        return
    check_avatar(avatar)


def check_avatar(folder: Path) -> None:
    """Raise InputError, OptionError or WeightsError unless the folder is an avatar with a manner of its own."""
    from deployments.engines.vasa1.manner import load_manner

    found = whole_avatar(folder)
    if found is None:
        raise InputError(f"expected an avatar's folder, as `lipsync fit CLIP --engine {ENGINE}` prints it, got {folder}")
    if found.engine != ENGINE:
        raise OptionError(f"expected an avatar of {ENGINE}, got one of {found.engine}; run `lipsync fit CLIP --engine {ENGINE}`")
    if not (folder / MANNER_FILE).is_file():
        raise OptionError(f"expected an avatar with a manner of its own, got {NONE}")
    load_manner(folder)


def manner_folder(avatar: Path, progress: Progress) -> Path:
    """The avatar's folder; of a clip, what was learned of its person, now or before. Raises the errors of a fit."""
    if avatar.is_dir():
        return avatar
    from serve_app.unified import LipSync

    folder = LipSync(ENGINE, progress=progress).fit(avatar)
    check_avatar(folder)
    return folder
