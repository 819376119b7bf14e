"""What a result takes over from the file that its clip came in, beside pictures and sound: how it is shown, tags, chapters,
and when it begins."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import av

from deployments.contracts import Clip
from deployments.media.container import open_input

if TYPE_CHECKING:
    from av.container.core import Chapter

TAGS = ("title", "artist", "album", "album_artist", "composer", "genre", "date", "creation_time", "copyright", "description")
PLACE = "location"
LONGEST_TAG = 2000  # characters
MOST_CHAPTERS = 1000
LATE = 1  # second; what begins earlier keeps its time stamps to the tick
OWN_CLOCK = ("mov", "mp4")  # containers in which a late beginning is a pause before the first picture


@dataclass(frozen=True)
class Inherited:
    """What the source's container tells."""

    tags: dict[str, str]
    comment: str
    begin: Fraction  # seconds to take off every time stamp, so that the result begins when players show the source to
    chapters: list[Chapter]
    left_out: str  # words about tracks that the result does not have; "" for none


def inherited(clip: Clip, kind: str, sound_is_new: bool) -> Inherited:
    """What a result in a container of `kind` ("mp4", "mov", "matroska") takes over from the clip's file.

    Streams that are cut out of a broadcast begin anywhere on their clock, and players count from there; an MP4 that
    begins late is shown with a pause. So its time stamps begin at 0 where the source, no MP4 itself, begins after `LATE`.
    """
    with open_input(clip.path) as container:
        known = {name.lower(): value[:LONGEST_TAG] for name, value in container.metadata.items()}
        late = kind in OWN_CLOCK and not set(container.format.name.split(",")) & set(OWN_CLOCK)
        start = Fraction(container.start_time or 0, av.time_base)
        left, chapters = _left_out(container, sound_is_new), container.chapters()[:MOST_CHAPTERS]
    tags = {name: known[name] for name in (*TAGS, PLACE) if known.get(name)}
    # whole ticks of the picture, whose times stay exact
    begin = start // clip.time_base * clip.time_base if late and start >= LATE else Fraction(0)
    return Inherited(tags, known.get("comment", ""), begin, [_earlier(chapter, begin) for chapter in chapters], left)


def orient(stream: av.VideoStream, clip: Clip) -> None:
    """Have a stream shown turned and mirrored as the clip is."""
    if clip.rotation or clip.mirrored:
        degrees = clip.rotation if clip.rotation <= 180 else clip.rotation - 360
        stream.set_display_rotation(degrees, hflip=clip.mirrored)


def shifted(packet: av.Packet[Any], begin: Fraction) -> av.Packet[Any]:
    """The packet, earlier by `begin` seconds."""
    if begin and packet.time_base:
        ticks = round(begin / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - ticks
        packet.dts = None if packet.dts is None else packet.dts - ticks
    return packet


def _earlier(chapter: Chapter, begin: Fraction) -> Chapter:
    base = chapter["time_base"] or Fraction(1, 1000)
    ticks = round(begin / base)
    return cast("Chapter", {**chapter, "start": chapter["start"] - ticks, "end": chapter["end"] - ticks})


def _left_out(container: av.container.InputContainer, sound_is_new: bool) -> str:
    counts = {
        "sound": len(container.streams.audio) - 1 if sound_is_new else 0,
        "subtitle": len(container.streams.subtitles),
    }
    words = [f"{count} {kind} track{'s' * (count > 1)}" for kind, count in counts.items() if count > 0]
    return f"left out: {', '.join(words)}" if words else ""
