"""Templates: a filmed message and its script, kept under a name, its person learned once.

<cache>/templates/<name>/  template.json  script.yaml  clip.<suffix>
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from deployments.errors import InputError, LipSyncError, OptionError, OutputError
from serve_app.media_store import MediaMissing, MediaStore
from serve_app.request import VIDEO_SUFFIXES, check_input
from serve_app.script import Script, parse_script, read_script
from serve_app.whole_files import MARKER

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FACTS, SCRIPT = "template.json", "script.yaml"
ROOM = "templates"


class TemplateMissing(LipSyncError):
    """There is no template of that name."""

    exit_code = 2
    http_status = 404
    code = "template_missing"


@dataclass(frozen=True)
class Template:
    """What is kept of one."""

    name: str
    folder: Path
    clip: Path
    digest: str  # sha256 of the clip's bytes
    script: Script
    face: str = "largest"
    engines: tuple[str, ...] = ()  # that learned the person
    seconds: float = 0.0
    created: float = 0.0  # Unix time
    notes: tuple[str, ...] = ()  # what the caller should know of its slots


class Templates:
    """The templates of one cache folder. An entry is written aside and moved into place whole."""

    def __init__(self, cache: Path) -> None:
        self.folder = cache / ROOM

    def create(self, name: str, clip: Path, script: str, facts: dict[str, Any], replaced: bool = False) -> Template:
        """Keep a copy of a clip, and its script (YAML). Raises OptionError for a name that is taken, OutputError."""
        place = self._place(name)
        if place.exists() and not replaced:
            raise OptionError(f"expected a new name, got {name!r}; delete that template first or use --replace")
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        try:
            kept = f"clip{clip.suffix.lower()}"
            shutil.copyfile(clip, aside / kept)
            (aside / SCRIPT).write_text(script, encoding="utf-8")
            told = {"clip": kept, "created": time.time(), **facts}
            (aside / FACTS).write_text(json.dumps(told, indent=2), encoding="utf-8")
            shutil.rmtree(place, ignore_errors=True)
            aside.rename(place)
        except OSError as error:
            raise OutputError(f"expected to keep the template in {self.folder}, got: {error}") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return self.open(name)

    def open(self, name: str) -> Template:
        """The template of a name. Raises TemplateMissing, InputError for one that was damaged."""
        place = self._place(name)
        if not (place / FACTS).is_file():
            known = ", ".join(sorted(template.name for template in self)) or "none yet"
            raise TemplateMissing(f"expected a template, got {name!r}; there are: {known} (`lipsync template create`)")
        try:
            facts = json.loads((place / FACTS).read_text(encoding="utf-8"))
            clip = place / facts.pop("clip")
            script = parse_script((place / SCRIPT).read_text(encoding="utf-8"), SCRIPT)
            facts = {**facts, "engines": tuple(facts["engines"]), "notes": tuple(facts["notes"])}
            template = Template(name=name, folder=place, clip=clip, script=script, **facts)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"expected a whole template in {place}, got: {error}; create it again") from error
        check_input(template.clip, "video")
        return template

    def learned(self, template: Template, engine: str) -> Template:
        """The same template, of which one more engine learned the person."""
        if engine in template.engines:
            return template
        known = replace(template, engines=tuple(dict.fromkeys([*template.engines, engine])))
        facts = asdict(known)
        for name in ("name", "folder", "script"):
            facts.pop(name)
        facts["clip"] = template.clip.name
        aside = template.folder / f".{FACTS}"
        aside.write_text(json.dumps(facts, indent=2), encoding="utf-8")
        aside.replace(template.folder / FACTS)
        return known

    def delete(self, name: str) -> None:
        """Forget a template. What was learned of its person stays in the cache. Raises TemplateMissing."""
        shutil.rmtree(self.open(name).folder)

    def __iter__(self) -> Iterator[Template]:
        """Those that are whole: a damaged one says so when it is opened."""
        for facts in sorted(self.folder.glob(f"*/{FACTS}")):
            if NAME.fullmatch(facts.parent.name):
                with suppress(LipSyncError):
                    yield self.open(facts.parent.name)

    def _place(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise OptionError(f"expected a name of letters, digits, dots, _ and - (at most 64), got {name[:80]!r}")
        return self.folder / name


def bring(store: MediaStore, name: str) -> None:
    """A template of a store that several machines share, as it is there now: it may have been replaced or deleted."""
    if store.local or not NAME.fullmatch(name):
        return
    key = f"{ROOM}/{name}"
    kept = store.root / key
    try:
        if (kept / FACTS).is_file() and store.newest(f"{key}/{FACTS}") != (kept / FACTS).read_bytes():
            (kept / MARKER).unlink(missing_ok=True)
        store.fetch_folder(key)
    except MediaMissing:
        shutil.rmtree(kept, ignore_errors=True)


def rows_of(store: MediaStore) -> list[tuple[str, float, Script, tuple[str, ...]]]:
    """Name, seconds, script and engines of a store's templates; their clips stay there."""
    found = []
    for name in sorted({key.split("/")[1] for key, _ in store.keys(f"{ROOM}/")}):
        with suppress(LipSyncError, ValueError, KeyError):
            facts = json.loads(store.newest(f"{ROOM}/{name}/{FACTS}"))
            script = parse_script(store.newest(f"{ROOM}/{name}/{SCRIPT}").decode(), SCRIPT)
            found.append((name, float(facts["seconds"]), script, tuple(facts["engines"])))
    return found


def read_parts(clip: Path, script: Path | str) -> str:
    """The script (a file, or YAML) of a template that is to be; both are looked at. Raises InputError or OptionError."""
    check_input(clip, "video")
    if clip.suffix.lower() not in VIDEO_SUFFIXES:
        raise OptionError(f"expected a clip that ends in {', '.join(VIDEO_SUFFIXES)}; got {clip.name!r}")
    return read_script(script) if isinstance(script, Path) else script
