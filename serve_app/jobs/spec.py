"""What a job is told: everything as keys of the media store, so that any machine can work on it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.planner import SyncMode
from serve_app.request import Quality


class PieceSpec(BaseModel):
    """A part of what is said in a slot; see `request.Piece`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = ""
    ipa: str = ""
    audio: str | None = None  # key in the media store


class SpeechSpec(BaseModel):
    """New speech: a stored sound file, words or the pieces of a slot, for the whole clip or from `start` to `end`
    (seconds, as written)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    audio: str | None = None  # key in the media store
    text: str | None = None
    pieces: tuple[PieceSpec, ...] = ()
    voice: str = "default"
    start: str | None = None
    end: str | None = None


class JobSpec(BaseModel):
    """One job. `kind` video: new speech on a clip; portrait: a still picture speaks; avatar: track and fit only;
    template: an avatar with a script."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["video", "portrait", "avatar", "template"] = "video"
    engine: str
    source: str  # key of the video or the picture
    speech: tuple[SpeechSpec, ...] = ()  # none for an avatar
    sync_mode: SyncMode = "silence"
    face: str = "largest"
    quality: Quality = "high"
    expression: float = Field(default=1.0, ge=0, le=2)
    emotion: str = "neutral"  # of a portrait, as gaze and distance; see `deployments.portrait.controls`
    gaze: tuple[float, float] = (0.0, 0.0)
    distance: float = 1.0
    manner: str | None = None  # of a portrait: key of the avatar whose way of moving the head is taken
    options: dict[str, float] = Field(default_factory=dict)
    chunks: int | None = Field(default=None, ge=1, le=10_000)
    report: bool = True
    avatar_id: str | None = None  # the avatar that `source` and `face` were taken from, or the manner
    template_id: str | None = None  # the template that they and the speech were taken from
    script: str | None = None  # of a template: YAML
