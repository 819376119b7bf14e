"""Templates over HTTP: from a clip and a script to an `id`, and from an `id` and variables to a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deployments.errors import OptionError
from serve_app.api.check import check_face, check_inside, check_url, pick_engine, read_options
from serve_app.api.errors import ApiError, about
from serve_app.api.inputs import Checked, Intake
from serve_app.api.schemas import TemplateRequest, VideoRequest
from serve_app.api.services import Services
from serve_app.jobs.records import Job
from serve_app.jobs.spec import JobSpec, PieceSpec, SpeechSpec
from serve_app.request import Piece, SpeechSource, check_slot_mode
from serve_app.script import Script, Value, check_ipa, check_voices, clean, load_script, parse_script
from serve_app.speech import check_said
from serve_app.transcript import is_transcript, sketch

if TYPE_CHECKING:
    from serve_app.api.submit import Caller

BESIDE = ("video", "image", "avatar_id", "input_reference", "audio", "text", "prompt", "segments", "size", "seconds", "chunks")


def template_spec(services: Services, intake: Intake, request: TemplateRequest) -> tuple[JobSpec, Checked, Script]:
    """What the worker is told of a new template; its clip, checked; its script."""
    engine = pick_engine(services, request.model, None, picture=False)
    check_face(request.face)
    check_url(request.callback_url, services.settings)
    with about("script"):
        text = as_yaml(request.script)
        words_only = is_transcript(load_script(text))
        script = sketch(text) if words_only else parse_script(text)
        if not script.slots():
            raise OptionError("expected at least one slot like {{customer_name}}, got none")
        check_voices(script)
    item = intake.check(request.video, "video", "video", face=True)
    with about("script"):
        if not words_only:
            check_inside([line.segment for line in script.lines], item.facts.seconds)
    intake.check_no_extra()
    spec = JobSpec(kind="template", engine=engine.name, source=item.key, face=request.face, report=False, script=text)
    return spec, item, script


def as_yaml(script: str | dict[str, Any]) -> str:
    """The script as it is kept."""
    if isinstance(script, str):
        return script
    import yaml

    return yaml.safe_dump(script, allow_unicode=True)


def find_template(services: Services, template_id: str, owner: str) -> Job:
    """The template's job, finished. Raises ApiError."""
    with about("template_id"):
        job = services.jobs.get(template_id, owner)
    if job.spec.kind != "template" or job.spec.script is None:
        raise ApiError(
            f"expected the id of a template, got that of a {job.spec.kind}", code="not_found", status=404, param="template_id"
        )
    if job.status in ("failed", "cancelled"):
        raise ApiError(f"expected a template that was learned, got one that {job.status}; send it again", param="template_id")
    if job.status != "succeeded":
        raise ApiError(
            f"expected a learned template, got one that is {job.status}; wait for it", 409, "template_not_ready", "template_id", 2
        )
    return job


def personal_spec(
    services: Services, intake: Intake, request: VideoRequest, caller: Caller
) -> tuple[JobSpec, list[Checked], dict[str, Any]]:
    """One customer's job, its recordings, and what is known of its output."""
    given = [name for name in BESIDE if getattr(request, name)]
    if given:
        raise ApiError(f"expected only variables beside a template_id, got {', '.join(given)}", param=given[0])
    assert request.template_id is not None
    template = find_template(services, request.template_id, caller.owner)
    engine = pick_engine(services, request.model or template.spec.engine, None, picture=False)
    options = read_options(engine, request.options, None)
    if options["face"] not in ("largest", template.spec.face):
        raise ApiError(f"expected the template's own face {template.spec.face!r}; leave it out", param="options.face")
    mode = request.sync_mode or "silence"
    with about("sync_mode"):
        check_slot_mode(mode)
    check_url(request.callback_url, services.settings)
    script = parse_script(template.info.get("script") or template.spec.script or "")
    values, keys, items = read_variables(intake, request, script.strictest())
    intake.check_no_extra()
    with about("variables"):
        sources = script.fill(values)
        for source in sources:
            check_said(source, voice_of(source, script), mode)
    speech = tuple(speech_spec(source, voice_of(source, script), keys) for source in sources)
    spec = JobSpec(
        kind="video",
        engine=engine.name,
        source=template.spec.source,
        speech=speech,
        sync_mode=mode,
        report=request.report,
        template_id=template.id,
        **{**options, "face": template.spec.face},
    )
    return spec, items, {name: template.info[name] for name in ("width", "height", "seconds") if name in template.info}


def read_variables(intake: Intake, request: VideoRequest, voice: str) -> tuple[dict[str, Value], dict[Any, str], list[Checked]]:
    """Values of the slots, the keys of their recordings by path, and the recordings. Raises ApiError that names the variable."""
    values: dict[str, Value] = {}
    keys: dict[Any, str] = {}
    items: list[Checked] = []
    for name, given in request.variables.items():
        where = f"variables.{name}"
        with about(where):
            if given.audio is not None:
                if given.text or given.ipa:
                    raise OptionError("expected either text or audio, got both")
                item = intake.check(given.audio, "audio", where)
                items.append(item)
                keys[item.path] = item.key
                values[name] = Value(audio=item.path)
                continue
            if given.ipa:
                check_ipa(name, given.ipa, voice)
            values[name] = Value(clean(name, given.text), given.ipa)
    return values, keys, items


def voice_of(source: SpeechSource, script: Script) -> str:
    """Name of the voice that says a slot."""
    return str(source.voice or script.voice)


def speech_spec(source: SpeechSource, voice: str, keys: dict[Any, str]) -> SpeechSpec:
    """A slot as it is stored: files by their keys."""
    assert source.segment is not None
    start, end = (str(moment) for moment in (source.segment.start, source.segment.end))
    return SpeechSpec(pieces=tuple(piece_spec(piece, keys) for piece in source.pieces), voice=voice, start=start, end=end)


def piece_spec(piece: Piece, keys: dict[Any, str]) -> PieceSpec:
    """See `speech_spec`."""
    return PieceSpec(text=piece.text, ipa=piece.ipa, audio=None if piece.audio is None else keys[piece.audio])
