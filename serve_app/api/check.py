"""What a request may ask for: each check names the field, what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from deployments.contracts import Segment
from deployments.errors import OptionError
from deployments.portrait.controls import EMOTIONS, Controls, read_gaze, split_emotion
from serve_app.api.errors import ApiError, about, short
from serve_app.api.inputs import Checked
from serve_app.api.schemas import MediaRef, VideoRequest
from serve_app.api.services import ApiSettings, EngineState, Services
from serve_app.jobs.records import Job
from serve_app.manner import ENGINE, MANNER_FILE, NONE
from serve_app.request import Quality, exact, segment

DEFAULT_ENGINE = "video_rewrite"
NEAR_SECONDS = 0.05
COMMON = ("expression", "quality")
PICTURE_OPTIONS = ("emotion", "gaze", "distance")
MOODS = EMOTIONS.keys() - {"neutral"}  # an engine that knows these for clips takes `emotion`, too
ARTICLE = {"video": "a video", "image": "an image"}


def pick_source(request: VideoRequest) -> tuple[str, MediaRef]:
    """The one field that says who shall speak."""
    fields = {name: getattr(request, name) for name in ("video", "image", "avatar_id", "input_reference")}
    given = {name: value for name, value in fields.items() if value is not None}
    if len(given) == 2 and given.keys() & {"image", "input_reference"}:
        given.pop("avatar_id", None)  # a picture moves in the manner of an avatar
    if len(given) != 1:
        came = " and ".join(given) or "none"
        raise ApiError(
            f"expected one of video, image and avatar_id, or image with avatar_id, got {came}", param=next(iter(given), "video")
        )
    return next(iter(given.items()))


def pick_engine(services: Services, name: str | None, avatar: Job | None, picture: bool) -> EngineState:
    """The engine of a job. Raises OptionError for an unknown one, or one that does not take this input."""
    known = services.engines()
    takes = "image" if picture else "video"
    if name is None:
        first = [state.name for state in known.values() if state.takes == takes]
        fallback = DEFAULT_ENGINE if DEFAULT_ENGINE in first or not first else first[0]
        name = avatar.spec.engine if avatar else fallback
    with about("model"):
        if name not in known:
            raise OptionError(f"expected a model of {', '.join(sorted(known))}; got {short(name)}; see GET /v1/models")
        if not known[name].takes_kind(picture):
            raise OptionError(
                f"expected a model that takes {ARTICLE[takes]}, got {name!r}, which takes {ARTICLE[known[name].takes]}"
            )
    if avatar is not None and avatar.spec.engine != name:
        raise ApiError(
            f"expected an avatar of {name}, got one of {avatar.spec.engine}; fit one with POST /v1/avatars, or use that model",
            code="wrong_avatar",
            param="avatar_id",
        )
    return known[name]


def find_avatar(services: Services, avatar_id: str | None, owner: str) -> Job | None:
    """The avatar's job, finished. Raises ApiError."""
    if avatar_id is None:
        return None
    with about("avatar_id"):
        job = services.jobs.get(avatar_id, owner)
    if job.spec.kind != "avatar":
        raise ApiError(
            f"expected the id of an avatar, got that of a {job.spec.kind}", code="not_found", status=404, param="avatar_id"
        )
    if job.status in ("failed", "cancelled"):
        raise ApiError(f"expected an avatar that was fitted, got one that {job.status}; fit it again", param="avatar_id")
    if job.status != "succeeded":
        raise ApiError(
            f"expected a fitted avatar, got one that is {job.status}; wait for it", 409, "avatar_not_ready", "avatar_id", 2
        )
    return job


def find_manner(services: Services, engine: EngineState, avatar: Job | None) -> str | None:
    """Key of the avatar in whose manner a picture shall move its head. Raises ApiError where there is none to take."""
    if avatar is None:
        return None
    if engine.name != ENGINE:
        raise ApiError(
            f"expected no avatar_id with a picture and {engine.name}, got one; only {ENGINE} takes its manner", param="avatar_id"
        )
    key = f"avatars/{avatar.info['avatar']}"
    if not services.media.exists(f"{key}/{MANNER_FILE}"):
        raise ApiError(f"expected an avatar with a manner of its own, got {NONE}", code="no_manner", param="avatar_id")
    return key


def option_names(engine: EngineState, picture: bool) -> list[str]:
    """What may be asked of an engine for a still picture, or for a clip."""
    words = ("emotion",) if set(engine.options) >= MOODS else ()
    return sorted({*COMMON, *(PICTURE_OPTIONS if picture else ("face", *engine.options, *words))})


def read_options(engine: EngineState, given: dict[str, Any], avatar: Job | None, picture: bool = False) -> dict[str, Any]:
    """The fields of JobSpec that options fill. Raises ApiError for one that the engine does not know."""
    known = option_names(engine, picture)
    found: dict[str, Any] = {"face": avatar.spec.face if avatar else "largest", "options": {}}
    for name, value in given.items():
        with about(f"options.{name}"):
            if name not in known:
                raise OptionError(f"expected an option of {', '.join(known)} with {engine.name}, got {name!r}")
            if picture and name in PICTURE_OPTIONS:
                found[name] = READERS[name](value)
                continue
            if name == "quality":
                if value not in get_args(Quality):
                    raise OptionError(f"expected a quality of {', '.join(get_args(Quality))}; got {short(value)}")
                found["quality"] = value
            elif name == "face":
                face = str(value)
                check_face(face)
                if avatar is not None and face != avatar.spec.face:
                    raise OptionError(f"expected the avatar's own face {avatar.spec.face!r}, got {face!r}; leave it out")
                found["face"] = face
            elif name == "emotion":
                mood, strength = split_emotion(str(value))
                found["options"] |= {} if mood == "neutral" else {mood: strength}
            elif name == "expression":
                found["expression"] = read_number(value, 0, 2)
            else:
                found["options"][name] = read_number(value, *engine.bounds.get(name, (-math.inf, math.inf)))
    return found


def read_emotion(value: Any) -> str:
    """An emotion's name and strength. Raises OptionError."""
    return Controls(emotion=str(value)).emotion


def read_look(value: Any) -> tuple[float, float]:
    """A gaze from `[x, y]` or "x,y". Raises OptionError."""
    if isinstance(value, list) and len(value) == 2:
        value = ",".join(str(read_number(part, -math.inf, math.inf)) for part in value)
    return Controls(gaze=read_gaze(str(value))).gaze


def read_distance(value: Any) -> float:
    """How far away the head is. Raises OptionError."""
    return Controls(distance=read_number(value, -math.inf, math.inf)).distance


READERS: dict[str, Callable[[Any], Any]] = {"emotion": read_emotion, "gaze": read_look, "distance": read_distance}


def read_number(value: Any, low: float, high: float) -> float:
    """A finite number between two others. Raises OptionError."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, TypeError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high):
        bounds = f" of {low:g} to {high:g}" if math.isfinite(low) else ""
        raise OptionError(f"expected a number{bounds}, got {short(value)}")
    return number


def check_face(face: str) -> None:
    """Raise OptionError unless `face` names a choice."""
    from deployments.face.choice import parse_choice

    with about("face"):
        if face != "speaking":  # that one needs the clip; it is known by name here
            parse_choice(face, None)


def check_url(url: str | None, settings: ApiSettings) -> None:
    """Raise ApiError unless a callback can go there. A name's address is checked whenever something is sent to it."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
        if fine and is_inside(str(parts.hostname), settings):
            raise ApiError("expected a callback_url that the whole internet can reach, got one inside", param="callback_url")
    except ValueError:
        fine = False
    if not fine:
        raise ApiError(f"expected a callback_url like https://host/path, got {short(url)}", param="callback_url")


def is_inside(host: str, settings: ApiSettings) -> bool:
    """Whether a host is written as an address that may not be asked."""
    try:
        return not settings.address_rule().allows(host)
    except ValueError:
        return False


def check_size(request: VideoRequest, item: Checked) -> None:
    """Raise ApiError where OpenAI's `size` or `seconds` ask for another video than the clip is: nothing is rescaled."""
    facts = item.facts
    if request.size is not None and request.size != f"{facts.width}x{facts.height}":
        raise ApiError(
            f"expected no size, or the input's own {facts.width}x{facts.height}, got {short(request.size)}", param="size"
        )
    if request.seconds is None or item.facts.codec == "image":
        return
    with about("seconds"):
        if abs(read_number(request.seconds, 0, math.inf) - float(facts.seconds)) > NEAR_SECONDS:
            raise ApiError(f"expected no seconds, or the input's own {float(facts.seconds):g}, got {short(request.seconds)}")


def check_places(request: VideoRequest, seconds: Fraction | float) -> None:
    """Raise ApiError for segments that overlap, are empty or leave the clip."""
    if request.segments:
        with about("segments"):
            check_inside([segment(part.start, part.end) for part in request.segments], seconds)


def check_inside(segments: Sequence[Segment], seconds: Fraction | float) -> None:
    """Raise OptionError for segments that overlap, are empty or leave a clip of that length."""
    import numpy as np

    from deployments.contracts import Clip
    from serve_app.planner import check_segments

    none = np.zeros(0, np.int64)
    clip = Clip(
        Path(),
        0,
        0,
        0,
        "",
        "",
        8,
        Fraction(1),
        none,
        none,
        exact(seconds if isinstance(seconds, Fraction) else str(seconds)),
        Fraction(1),
    )
    check_segments(clip, segments)
