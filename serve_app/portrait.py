"""A still picture that speaks: its own short way of the data, since there is no clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Progress, Speech, no_progress
from deployments.errors import MediaError, OptionError
from serve_app.manner import check_manner, manner_folder
from serve_app.request import Quality, SpeechSource, check_input, check_output
from serve_app.speech import load_source

if TYPE_CHECKING:
    from deployments.portrait.controls import Controls

PORTRAIT_ENGINES = ("portrait", "vasa1", "emo")
MAX_SIDE = 8192
PICTURE_BYTES = 256 << 20


@dataclass(frozen=True)
class PortraitRequest:
    """One speaking portrait."""

    image: Path
    speech: SpeechSource
    out: Path
    quality: Quality = "high"
    voice: str = "default"
    expression: float = 1.0
    engine: str = "portrait"
    emotion: str = "neutral"
    gaze: tuple[float, float] = (0.0, 0.0)
    distance: float = 1.0
    manner: Path | None = None  # an avatar's folder, or a clip of its person, whose way of moving the head is taken


def run_portrait(request: PortraitRequest, progress: Progress = no_progress) -> Path:
    """Video of a still picture that speaks. Raises the errors of `deployments.errors`."""
    from deployments.media.encode import EncodeOptions, encode_new
    from deployments.media.sound import SoundPlan

    check_portrait(request)
    picture = read_picture(request.image)
    speech = load_source(request.speech, request.voice)
    if request.manner is not None:
        request = replace(request, manner=manner_folder(request.manner, progress))
    rate, frames = drawn(request, picture, speech, progress)
    sound = SoundPlan(speech.samples, speech.rate, (), keep_source=False)
    encode = EncodeOptions(request.quality)
    encode_new(picture.shape[1], picture.shape[0], rate, frames, sound, encode, request.out)
    return request.out


def drawn(
    request: PortraitRequest, picture: NDArray[np.uint8], speech: Speech, progress: Progress
) -> tuple[Fraction, Iterator[NDArray[np.uint8]]]:
    """Frames per second and frames, moved as the request's engine moves faces."""
    asked = controls_of(request)
    if request.engine == "vasa1":
        from deployments.engines.vasa1 import portrait as generated
        from deployments.engines.vasa1.manner import Manner, load_manner

        manner = Manner() if request.manner is None else load_manner(request.manner)
        moved = generated.PortraitOptions(mouth=request.expression, controls=asked, manner=manner)
        return generated.render_portrait(picture, speech, moved, progress)
    if request.engine == "emo":
        from deployments.engines.emo import portrait as diffused
        from deployments.engines.emo.hallo2.config import SampleConfig

        return diffused.render_portrait(
            picture, speech, diffused.PortraitOptions(SampleConfig(expression=request.expression), controls=asked), progress
        )
    from deployments.engines.portrait.config import PortraitOptions
    from deployments.engines.portrait.engine import render_portrait

    return render_portrait(picture, speech, PortraitOptions(mouth=request.expression, controls=asked), progress)


def controls_of(request: PortraitRequest) -> Controls:
    """What the request asks of the face. Raises OptionError."""
    from deployments.portrait.controls import Controls

    return Controls(request.emotion, request.gaze, request.distance)


def check_portrait(request: PortraitRequest) -> None:
    """Refuse what cannot work before any work. Raises InputError, OptionError, OutputError or WeightsError."""
    check_input(request.image, "picture")
    if (request.speech.audio is None) == (request.speech.text is None):
        raise OptionError("expected new speech: give either --audio FILE or --text WORDS")
    if request.speech.audio is not None:
        check_input(request.speech.audio, "sound")
    check_output(request.out, [request.image])
    if request.engine not in PORTRAIT_ENGINES:
        raise OptionError(f"expected a portrait engine of {', '.join(PORTRAIT_ENGINES)}; got {request.engine!r}")
    controls_of(request)
    if request.manner is not None:
        check_manner(request.engine, request.manner)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Upright picture [H, W, 3] RGB, even sides. Raises MediaError."""
    import cv2

    if path.stat().st_size > PICTURE_BYTES:
        raise MediaError(f"{path.name}: expected a picture of at most {PICTURE_BYTES >> 20} MiB; scale it first")
    picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise MediaError(f"{path.name}: expected a picture (PNG, JPEG, WebP, …), got something else")
    height, width = picture.shape[:2]
    if max(height, width) > MAX_SIDE:
        raise MediaError(f"{path.name}: expected at most {MAX_SIDE} pixels a side, got {width}x{height}; scale it first")
    even = picture[: height // 2 * 2, : width // 2 * 2, ::-1]
    return np.ascontiguousarray(even, dtype=np.uint8)
