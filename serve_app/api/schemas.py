"""What comes in and what goes out, as pydantic models. The shape is that of OpenAI's Videos API, with more fields."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

from serve_app.jobs.records import Asset, Job
from serve_app.jobs.spec import SpeechSpec
from serve_app.planner import SyncMode

SHOWN: dict[str, str] = {
    "queued": "queued",
    "running": "in_progress",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "failed",
}
STORED = {"queued": "queued", "in_progress": "running", "completed": "succeeded", "failed": "failed", "cancelled": "cancelled"}
StatusWord = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
Metadata = dict[Annotated[str, StringConstraints(min_length=1, max_length=64)], Annotated[str, StringConstraints(max_length=512)]]
MAX_SEGMENTS = 1000
SECONDS = re.compile(r"-?\d{1,7}(\.\d{1,12})?")


class _In(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MediaRef(_In):
    """Where a file is: `{"url": …}`, or as a string a URL, an asset id, or the name of a file part."""

    url: str | None = Field(default=None, min_length=1, max_length=4096)
    file_id: str | None = Field(default=None, min_length=1, max_length=200)  # of an asset, or a part's name

    @model_validator(mode="before")
    @classmethod
    def read(cls, value: Any) -> Any:
        """A string as what it looks like; OpenAI's `image_url` as `url`."""
        if isinstance(value, str):
            return {"url" if value.lower().startswith(("http://", "https://")) else "file_id": value}
        if not isinstance(value, dict):
            raise ValueError(f"expected a string or an object with a url, got {type(value).__name__}")
        if len(value) != 1:
            raise ValueError("expected an object with one field, url or file_id")
        return {"url": value["image_url"]} if "image_url" in value else value


def read_seconds(value: Any) -> str:
    """A time as a person writes it, so that 0.1 stays one tenth; no exponents, whose exact numbers fill the memory."""
    text = f"{value:.9f}".rstrip("0").rstrip(".") if isinstance(value, float) and math.isfinite(value) else str(value)
    if isinstance(value, bool) or not SECONDS.fullmatch(text):
        raise ValueError("expected seconds like 1.5")
    return text


MediaInput = Annotated[
    MediaRef,
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object", "properties": {"url": {"type": "string"}}}]}),
]
Seconds = Annotated[str, BeforeValidator(read_seconds), WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]})]
MEDIA = "a URL (http, https), an asset id (asset_…), or in multipart a file part of this name, or the name of one"


class SegmentInput(_In):
    """New speech from `start` to `end` seconds of the clip: `audio` or `text`."""

    start: Seconds = Field(examples=[1.5], description="seconds; a string is taken as written")
    end: Seconds = Field(examples=[4])
    audio: MediaInput | None = Field(default=None, description=MEDIA)
    text: str | None = None
    voice: str | None = Field(default=None, max_length=200, description="the request's unless given")


class Variable(_In):
    """What a slot says: `text`, `text` and its `ipa`, or `audio`. A plain string is its text."""

    text: str = Field(default="", max_length=1000)
    ipa: str = Field(default="", max_length=200)
    audio: MediaInput | None = Field(default=None, description=MEDIA)

    @model_validator(mode="before")
    @classmethod
    def read(cls, value: Any) -> Any:
        """A string or a number as words, `words|ipa:sounds` as both."""
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            text, _, ipa = str(value).partition("|ipa:")
            return {"text": text, "ipa": ipa.strip()}
        return value


VariableInput = Annotated[
    Variable,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {name: {"type": "string"} for name in ("text", "ipa", "audio")}},
            ]
        }
    ),
]


class VideoRequest(_In):
    """Body of `POST /v1/videos`. In multipart, `segments`, `options` and `metadata` are JSON strings."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "video_rewrite", "video": {"url": "https://example.org/clip.mp4"}, "text": "Good morning."},
                {"video": "asset_0123", "segments": [{"start": 1.5, "end": 4, "audio": "asset_4567"}]},
            ]
        }
    )

    model: str | None = Field(default=None, description="an engine of `GET /v1/models`; video_rewrite unless given")
    video: MediaInput | None = Field(default=None, description=f"the clip: {MEDIA}")
    image: MediaInput | None = Field(default=None, description="a still picture that shall speak, instead of a clip")
    avatar_id: str | None = Field(
        default=None,
        description="a person fitted before, instead of a clip; with an image: whose way of moving the head it takes",
    )
    template_id: str | None = Field(default=None, description="a filmed message with slots, instead of a clip and speech")
    variables: dict[str, VariableInput] = Field(
        default_factory=dict,
        max_length=MAX_SEGMENTS,
        examples=[{"customer_name": "John", "destination": {"text": "Nguyen", "ipa": "wɪn"}}],
        description="what the template's slots say: words, words with their sounds (IPA), or a recording",
    )
    audio: MediaInput | None = Field(default=None, description="the new speech, for the whole clip")
    text: str | None = Field(default=None, description="the new speech as words, for the whole clip")
    voice: str = Field(default="default", max_length=200, description="of the words: default, or one that the operator listed")
    segments: list[SegmentInput] = Field(default_factory=list, max_length=MAX_SEGMENTS)
    sync_mode: SyncMode | None = Field(default=None, description="what to do where clip and speech differ in length")
    options: dict[str, Any] = Field(
        default_factory=dict,
        examples=[{"expression": 1.0, "quality": "high", "face": "largest"}],
        description="expression 0..2, quality high|lossless|small, face largest|speaking|index|x,y,w,h, and the engine's own; "
        "for a picture, and for a clip with emo, emotion neutral|happy|sad|surprised|angry (happy:0.5 is half of it); "
        "for a picture gaze [x, y] in eye widths (right, down; within 0.3), distance 0.8..1.25",
    )
    metadata: Metadata = Field(default_factory=dict, max_length=16)
    callback_url: str | None = Field(default=None, max_length=2048, description="gets a signed POST when the job ends")
    chunks: int | None = Field(default=None, ge=1, le=10_000, description="pieces of work; chosen unless given")
    report: bool = Field(default=True, description="make a quality report")
    prompt: str | None = Field(default=None, description="OpenAI's field: the words to speak where nothing else is given")
    input_reference: MediaInput | None = Field(default=None, description="OpenAI's field: the clip or the picture")
    seconds: Seconds | None = Field(default=None, description="OpenAI's field: taken only if it is the clip's length")
    size: str | None = Field(default=None, description="OpenAI's field: taken only if it is the clip's size")


class AvatarRequest(_In):
    """Body of `POST /v1/avatars`: learn a person once, use `avatar_id` many times."""

    model: str | None = None
    video: MediaInput = Field(description=MEDIA)
    face: str = "largest"
    metadata: Metadata = Field(default_factory=dict, max_length=16)
    callback_url: str | None = Field(default=None, max_length=2048)


class TemplateRequest(_In):
    """Body of `POST /v1/templates`: a filmed message and its script, whose slots every customer fills."""

    model: str | None = None
    video: MediaInput = Field(description=MEDIA)
    script: str | dict[str, Any] = Field(
        description="YAML, or the same as an object: segments with times, or a transcript whose words are found in the clip",
        examples=[
            {"segments": [{"start": 3.2, "end": 6, "text": "Hello {{customer_name}}"}]},
            {"transcript": "Hi, this is Anna. [Hello {{customer_name|said:friend}}, it is ready.] See you soon."},
        ],
    )
    face: str = "largest"
    metadata: Metadata = Field(default_factory=dict, max_length=16)
    callback_url: str | None = Field(default=None, max_length=2048)


class AssetRequest(_In):
    """Body of `POST /v1/assets`: a `file` sent ahead."""

    file: MediaInput
    kind: Literal["video", "audio", "image"] | None = Field(default=None, description="found out unless given")


class ErrorInfo(BaseModel):
    """Why a job did not complete."""

    code: str
    message: str


class Refusal(BaseModel):
    """Why a request was refused."""

    message: str
    type: str
    param: str | None = Field(description="the field it is about")
    code: str
    retryable: bool


class ErrorAnswer(BaseModel):
    """Every error has this shape."""

    error: Refusal


class JobAnswer(BaseModel):
    """A job, with the fields of OpenAI's `Video`. A cancelled job is `failed` with the error code `cancelled`."""

    id: str
    object: Literal["video", "avatar", "template"]
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int = Field(description="0..100")
    created_at: int
    completed_at: int | None = None
    expires_at: int | None = None
    size: str = Field(description="WIDTHxHEIGHT")
    seconds: str
    prompt: str | None = None
    remixed_from_video_id: str | None = None
    error: ErrorInfo | None = None
    stage: str = ""
    done: int = 0
    total: int = 0
    eta: float | None = Field(default=None, description="seconds until the end, as far as can be told")
    cancel_requested: bool = False
    attempt: int = 0
    frames: int | None = None
    avatar_id: str | None = None
    template_id: str | None = None
    variables: list[str] = Field(default_factory=list, description="of a template: the names of its slots")
    script: str | None = Field(default=None, description="of a template that was asked for by its id: YAML, with its times")
    notes: list[str] = Field(default_factory=list, description="of a template: what its author should know of the slots")
    metadata: dict[str, str] = Field(default_factory=dict)
    content_url: str | None = None
    report_url: str | None = None
    request_id: str = ""


class JobList(BaseModel):
    """A page of jobs, newest first unless asked otherwise; go on with `after=last_id`."""

    object: Literal["list"] = "list"
    data: list[JobAnswer]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class AssetAnswer(BaseModel):
    """A stored input file."""

    id: str
    object: Literal["asset"] = "asset"
    kind: Literal["video", "audio", "image"]
    name: str
    bytes: int
    created_at: int


class AssetList(BaseModel):
    """All assets of the caller."""

    object: Literal["list"] = "list"
    data: list[AssetAnswer]


class Deleted(BaseModel):
    """What was deleted."""

    id: str
    object: str
    deleted: Literal[True] = True


def show_job(job: Job) -> JobAnswer:
    """A job as its caller sees it."""
    info: dict[str, Any] = job.info
    done = job.status == "succeeded"
    kind = job.spec.kind if job.spec.kind in ("avatar", "template") else "video"
    whole = 100 if done else min(99, int(100 * job.fraction))
    words = next((words_of(speech) for speech in job.spec.speech if words_of(speech)), None)
    place = f"/v1/videos/{job.id}"
    return JobAnswer.model_validate(
        {
            "id": job.id,
            "object": kind,
            "model": job.spec.engine,
            "status": SHOWN[job.status],
            "progress": whole,
            "created_at": int(job.created_at),
            "completed_at": None if job.completed_at is None else int(job.completed_at),
            "expires_at": None if job.expires_at is None else int(job.expires_at),
            "size": f"{info.get('width', 0)}x{info.get('height', 0)}",
            "seconds": f"{float(info.get('seconds', 0)):g}",
            "prompt": words,
            "error": trouble(job),
            "eta": None if done else job.eta,
            "frames": info.get("frames"),
            "content_url": f"{place}/content" if done and job.result else None,
            "report_url": f"{place}/report" if done and job.report else None,
            **{
                name: getattr(job, name)
                for name in ("stage", "done", "total", "cancel_requested", "attempt", "metadata", "request_id")
            },
            "avatar_id": job.spec.avatar_id,
            "template_id": job.spec.template_id,
            "notes": info.get("notes", []),
            "variables": info.get("variables", []),
        }
    )


def words_of(speech: SpeechSpec) -> str | None:
    """What is said, as far as it was given in words."""
    return speech.text or " ".join(piece.text.strip() for piece in speech.pieces if piece.text) or None


def trouble(job: Job) -> ErrorInfo | None:
    """Why a job did not complete, if it did not."""
    if job.status == "cancelled":
        return ErrorInfo(code="cancelled", message=job.error or "the job was cancelled by its caller")
    if job.status == "failed":
        return ErrorInfo(code=job.error_code or "failed", message=job.error or "the job failed")
    return None


def show_asset(asset: Asset) -> AssetAnswer:
    """An asset as its caller sees it."""
    return AssetAnswer(id=asset.id, kind=asset.kind, name=asset.name, bytes=asset.size, created_at=int(asset.created_at))
