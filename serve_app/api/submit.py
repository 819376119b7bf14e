"""From a request to a queued job. Everything is checked first; a refusal leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from deployments.errors import OptionError
from serve_app.api.check import (
    check_face,
    check_places,
    check_size,
    check_url,
    find_avatar,
    find_manner,
    pick_engine,
    pick_source,
    read_options,
)
from serve_app.api.errors import ApiError, about, from_validation
from serve_app.api.inputs import Checked, Intake, is_picture
from serve_app.api.personal import personal_spec, template_spec
from serve_app.api.schemas import AvatarRequest, SegmentInput, TemplateRequest, VideoRequest
from serve_app.api.services import Services
from serve_app.api.uploads import Form, read_object
from serve_app.jobs.records import Job
from serve_app.jobs.spec import JobSpec, SpeechSpec

STRUCTURED = ("segments", "variables", "script", "options", "metadata", "input_reference", "video", "image", "audio", "file")
MEDIA_FIELDS = ("video", "image", "audio", "input_reference", "file")
MAX_KEY = 256
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Caller:
    """What a request's head says."""

    owner: str
    request_id: str
    idempotency_key: str | None


def read_fields(form: Form) -> dict[str, Any]:
    """The fields as JSON would have them: structured ones parsed, `name[key]` gathered, file parts named."""
    if form.is_json:
        return form.fields
    found: dict[str, Any] = {}
    for name, value in form.fields.items():
        outer, bracket, inner = name.partition("[")
        if bracket and inner.endswith("]") and "[" not in inner:
            gathered = found.setdefault(outer, {})
            if isinstance(gathered, dict):
                gathered[inner[:-1]] = value
        elif name in STRUCTURED and value.lstrip().startswith(("{", "[")):
            found[name] = read_structured(name, value)
        elif value != "" or name in ("text", "prompt"):
            found[name] = value
    for name in form.files:
        if name in MEDIA_FIELDS:
            found[name] = name
    return found


def read_structured(name: str, value: str) -> Any:
    """A JSON value in a multipart field. Raises ApiError."""
    with about(name):
        return read_object(f'{{"value": {value}}}'.encode())["value"]


def parse(model: type[Model], form: Form) -> Model:
    """A request's fields as a model. Raises ApiError that names the field."""
    try:
        return model.model_validate(read_fields(form))
    except ValidationError as error:
        raise from_validation(error) from None


def submit_video(services: Services, form: Form, caller: Caller) -> Job:
    """Check a request of `POST /v1/videos` and queue its job. Blocking."""
    request = parse(VideoRequest, form)
    intake = Intake(services, caller.owner, form)
    if request.template_id is not None:
        return submit_personal(services, intake, request, caller)
    if request.variables:
        raise ApiError("expected a template_id with variables, got none", param="variables")
    source_name, source = pick_source(request)
    avatar = find_avatar(services, request.avatar_id, caller.owner)
    picture = source_name == "image" or (source_name == "input_reference" and is_picture(intake.locate(source, source_name)))
    engine = pick_engine(services, request.model, avatar, picture)
    manner = find_manner(services, engine, avatar) if picture else None
    clip = avatar if source_name == "avatar_id" else None  # whose clip is taken
    if avatar is not None and clip is None and not picture:
        raise ApiError("expected either a clip or an avatar_id, got both; leave one of them out", param="avatar_id")
    options = read_options(engine, request.options, clip, picture)
    parts = read_speech(request)
    check_url(request.callback_url, services.settings)
    if picture and (request.segments or request.sync_mode):
        raise OptionError("expected neither segments nor a sync mode with a picture, got one; leave it out")
    items = []
    if clip is None:
        items.append(intake.check(source, "image" if picture else "video", source_name, face=True))
        check_size(request, items[0])
    check_places(request, items[0].facts.seconds if clip is None else clip.info["seconds"])
    speech, sounds = take_speech(intake, request, parts)
    intake.check_no_extra()
    job_spec = JobSpec(
        kind="portrait" if picture else "video",
        engine=engine.name,
        source=clip.spec.source if clip else items[0].key,
        speech=speech,
        sync_mode=request.sync_mode or "silence",
        chunks=request.chunks,
        report=request.report,
        avatar_id=request.avatar_id,
        manner=manner,
        **options,
    )
    return queue(services, intake, items + sounds, job_spec, request.metadata, request.callback_url, caller)


def submit_avatar(services: Services, form: Form, caller: Caller) -> Job:
    """Check a request of `POST /v1/avatars` and queue its job. Blocking."""
    request = parse(AvatarRequest, form)
    intake = Intake(services, caller.owner, form)
    engine = pick_engine(services, request.model, None, picture=False)
    check_face(request.face)
    check_url(request.callback_url, services.settings)
    item = intake.check(request.video, "video", "video", face=True)
    intake.check_no_extra()
    spec = JobSpec(kind="avatar", engine=engine.name, source=item.key, face=request.face, report=False)
    return queue(services, intake, [item], spec, request.metadata, request.callback_url, caller)


def submit_template(services: Services, form: Form, caller: Caller) -> Job:
    """Check a request of `POST /v1/templates` and queue its job. Blocking."""
    request = parse(TemplateRequest, form)
    intake = Intake(services, caller.owner, form)
    spec, item, script = template_spec(services, intake, request)
    info = {**known([item]), "variables": list(script.slots())}
    return queue(services, intake, [item], spec, request.metadata, request.callback_url, caller, info)


def submit_personal(services: Services, intake: Intake, request: VideoRequest, caller: Caller) -> Job:
    """Check a template's variables and queue one customer's job. Blocking."""
    spec, items, info = personal_spec(services, intake, request, caller)
    return queue(services, intake, items, spec, request.metadata, request.callback_url, caller, info)


def queue(
    services: Services,
    intake: Intake,
    items: list[Checked],
    spec: JobSpec,
    metadata: dict[str, str],
    callback: str | None,
    caller: Caller,
    info: dict[str, Any] | None = None,
) -> Job:
    """Store the inputs and create the job; an equal request with the same idempotency key gets the first one's job."""
    idempotency = None
    if caller.idempotency_key is not None:
        if not 1 <= len(caller.idempotency_key) <= MAX_KEY:
            raise ApiError(f"expected an Idempotency-Key of 1 to {MAX_KEY} characters", param="Idempotency-Key")
        whole = json.dumps([spec.model_dump(mode="json"), metadata, callback], sort_keys=True)
        idempotency = (caller.idempotency_key, hashlib.sha256(whole.encode()).hexdigest())
    try:
        intake.store(items)
        job, _ = services.jobs.create(
            spec,
            caller.owner,
            metadata=metadata,
            callback_url=callback,
            request_id=caller.request_id,
            idempotency=idempotency,
            info=known(items) if info is None else info,
        )
    except BaseException:
        intake.take_back()
        raise
    intake.store_again(items)
    return job


def known(items: list[Checked]) -> dict[str, Any]:
    """What is known of the output before it is planned: the picture's size, its length where it has one, the clip's name."""
    facts = [item.facts for item in items if item.facts.kind != "audio"]
    if not facts:
        return {}
    size = {"width": facts[0].width, "height": facts[0].height, "seconds": float(facts[0].seconds or 0)}
    return {**size, "name": items[0].name}


def read_speech(request: VideoRequest) -> list[SegmentInput]:
    """What shall be said: the segments, or one piece for the whole clip (its times mean nothing). Raises ApiError."""
    if request.segments:
        for name in ("audio", "text"):
            if getattr(request, name) is not None:
                raise ApiError(f"expected either segments or {name}, got both; put it into a segment", param=name)
        parts = request.segments
    else:
        text = request.text
        if text is None and request.audio is None:
            text = request.prompt or None
        parts = [SegmentInput(start="0", end="0", audio=request.audio, text=text)]
    for number, part in enumerate(parts):
        check_words(part, part.voice or request.voice, f"segments[{number}]" if request.segments else "")
    return parts


def check_words(part: SegmentInput, voice: str, where: str) -> None:
    """Raise ApiError unless a piece of speech is either a file or a text that the voice can speak."""
    from deployments.audio.voice import Words, voice_named

    if (part.audio is None) == (part.text is None):
        came = "none" if part.audio is None else "both"
        raise ApiError(
            f"{where or 'the request'}: expected new speech as either audio or text, got {came}", param=where or "audio"
        )
    if part.text is not None:
        with about(f"{where}.voice".lstrip(".")):
            speaker = voice_named(voice)
        with about(f"{where}.text".lstrip(".")):
            speaker.check([Words(part.text)])


def take_speech(intake: Intake, request: VideoRequest, parts: list[SegmentInput]) -> tuple[tuple[SpeechSpec, ...], list[Checked]]:
    """All new speech with its sound files checked, and those files. Raises ApiError."""
    specs, items = [], []
    for number, part in enumerate(parts):
        start, end = (part.start, part.end) if request.segments else (None, None)
        item = None
        if part.audio is not None:
            item = intake.check(part.audio, "audio", f"segments[{number}].audio" if request.segments else "audio")
            items.append(item)
        voice = part.voice or request.voice
        specs.append(SpeechSpec(audio=item.key if item else None, text=part.text, voice=voice, start=start, end=end))
    return tuple(specs), items
