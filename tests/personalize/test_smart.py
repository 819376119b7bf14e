"""Where nothing changes, the file holds the source's own packets, and every frame can still be decoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from deployments.contracts import Avatar, Clip, Span
from deployments.media.avc import encoder_header, parse_header, sps_id
from deployments.media.decode import decode
from deployments.media.encode import EncodeOptions, encode_chunk
from deployments.media.probe import probe
from deployments.media.smart import CannotCopy, copy_chunk, copying
from deployments.media.stitch import stitch
from deployments.wire import pack, unpack
from deployments.worker import ChunkTask, render_chunk
from serve_app.planner import cut_around

Film = Callable[..., Path]


def packets(path: Path) -> list[tuple[float, bytes]]:
    """Time and payload of every video packet, in the order of display."""
    with av.open(str(path)) as container:
        found = [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(container.streams.video[0]) if p.size]
    return sorted(found)


def frames(path: Path) -> list[NDArray[np.uint8]]:
    """Stored samples of every decoded frame; fails where the decoder finds a damaged one."""
    with av.open(str(path)) as container:
        found = list(container.decode(video=0))
    assert not any(frame.is_corrupt for frame in found)
    return [frame.to_ndarray() for frame in found]


def replaced(clip: Clip, start: int, stop: int, out: Path) -> Path:
    """The clip with the frames from `start` to `stop` encoded again, all others copied."""
    match = copying(clip, "high").match
    options = EncodeOptions("high", match)
    parts = [out.with_name(f"{k}.mkv") for k in range(4)]
    middle = (start + stop) // 2
    if start:
        copy_chunk(clip, Span(0, start), match, parts[0])
    encode_chunk(clip, decode(clip, Span(start, middle)), options, parts[1])
    encode_chunk(clip, decode(clip, Span(middle, stop)), options, parts[2])
    copy_chunk(clip, Span(stop, clip.frames), match, parts[3])
    stitch(clip, parts if start else parts[1:], clip.pts, None, out)
    return out


@pytest.mark.parametrize(
    ("params", "profile"),
    [
        ("keyint=15:scenecut=0:open-gop=0", "high"),
        ("keyint=15:scenecut=0:open-gop=0:bframes=0", "high"),
        ("keyint=15:scenecut=0:bframes=2:b-pyramid=none", "main"),
        ("keyint=15:scenecut=0:bframes=0", "baseline"),
        ("keyint=15:scenecut=0:bframes=8:b-adapt=2:ref=5", "high"),
        ("keyint=15:scenecut=0:sps-id=31", "high"),
        ("keyint=15:scenecut=0:fullrange=1:aud=1", "high"),
    ],
)
def test_packets_outside_are_the_sources_and_all_frames_decode(film: Film, tmp_path: Path, params: str, profile: str) -> None:
    source = film(params=params, profile=profile)
    out = replaced(probe(source), 30, 60, tmp_path / "out.mp4")
    before, after = packets(source), packets(out)
    assert [time for time, _ in before] == [time for time, _ in after]
    same = np.array([a == b for (_, a), (_, b) in zip(before, after, strict=True)])
    assert same[:30].all() and same[60:].all() and not same[30:60].any()
    seen = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames(source), frames(out), strict=True)]
    assert len(seen) == 90 and max(seen[:30] + seen[60:]) == 0 and 0 < max(seen[30:60]) < 3


@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_other_containers_copy_too(film: Film, tmp_path: Path, suffix: str) -> None:
    source = film(f"film{suffix}")
    out = replaced(probe(source), 15, 45, tmp_path / f"out{suffix}")
    seen = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames(source), frames(out), strict=True)]
    assert max(seen[:15] + seen[45:]) == 0 and max(seen[15:45]) > 0


def test_a_copied_chunk_is_a_piece_of_work_like_others_on_another_machine(film: Film, tmp_path: Path) -> None:
    clip = probe(film())
    options = EncodeOptions("high", copying(clip, "high").match)
    avatar = Avatar("fake", tmp_path / "avatar", "")
    task = ChunkTask(
        *(clip, Span(15, 45), None, "fake", avatar, tmp_path / "m", tmp_path / "t", options, tmp_path / "chunk.mkv"), copied=True
    )
    sent = pack(task, tmp_path)
    assert str(tmp_path) not in repr(sent) and sent.encode == options
    ticks: list[int] = []
    done = render_chunk(unpack(sent, tmp_path), ticks.append)
    assert (done.patched, sum(ticks)) == (0, 30) and len(frames(done.out)) == 30, "no motion, no track, no avatar is read"


@pytest.mark.parametrize("start", [0, 15])
def test_rotation_and_colours_stay(film: Film, tmp_path: Path, start: int) -> None:
    """Whichever encoder made the first chunk."""
    source = film(rotation=90, color=1)
    out = replaced(probe(source), start, 45, tmp_path / "out.mp4")
    before, after = probe(source), probe(out)
    assert before.rotation in (90, 270) and before.color["space"] == 1
    assert (after.rotation, after.width, after.height, after.color) == (
        before.rotation,
        before.width,
        before.height,
        before.color,
    )
    assert len(frames(out)) == 90


def test_the_header_holds_both_encoders_and_fits_their_profiles(film: Film) -> None:
    clip = probe(film(params="keyint=15:scenecut=0:sps-id=31", profile="main"))
    header = parse_header(copying(clip, "high").match.header)
    assert header is not None and [sps_id(unit) for unit in header.sps] == [31, 30]
    assert header.profile == 77 == header.sps[1][1] and header.level >= max(unit[3] for unit in header.sps)


def test_bare_units_become_a_record() -> None:
    sps, pps = bytes([0x67, 77, 0x40, 31, 0x80]), bytes([0x68, 0x80])
    header = encoder_header(b"\0\0\0\1" + sps + b"\0\0\0\1" + pps)
    assert (header.profile, header.level, header.sps, header.pps, header.set_ids()) == (77, 31, (sps,), (pps,), {0})


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"codec": "libx265", "params": "keyint=15:log-level=error"}, "hevc"),
        ({"codec": "mpeg4"}, "mpeg4"),
        ({"pix_fmt": "yuv422p", "profile": "high422"}, "yuv422p"),
        ({"name": "film.ts"}, "mpegts"),
    ],
)
def test_what_cannot_be_copied_says_why(film: Film, made: dict[str, str], reason: str) -> None:
    with pytest.raises(CannotCopy, match=reason):
        copying(probe(film(**made)), "high")


def test_cuts_lie_between_what_is_copied_what_stays_and_what_changes() -> None:
    changing, whole = np.zeros(1000, bool), np.ones(1000, bool)
    changing[110:130] = changing[704:900] = True
    entries = np.arange(0, 1000, 50)
    spans = [(span.start, span.stop) for span in cut_around(changing, whole, entries, 2)]
    assert spans[:4] == [(0, 100), (100, 110), (110, 130), (130, 150)], "the rest of a group is encoded, and the same for all"
    assert spans[4:] == [(150, 450), (450, 700), (700, 800), (800, 900), (900, 1000)], "four frames are no chunk of their own"
    whole[950:] = False
    assert cut_around(changing, whole, entries, 2)[-2:] == (Span(900, 950), Span(950, 1000))
    everything = cut_around(changing, np.zeros(1000, bool), np.array([0]), 1)
    assert everything[:3] == (Span(0, 110), Span(110, 130), Span(130, 417)), "nothing can be copied"
    assert cut_around(np.ones(60, bool), whole[:60], np.array([0]), 2) == (Span(0, 30), Span(30, 60))


def test_lossless_pictures_never_stand_beside_copied_ones(film: Film) -> None:
    with pytest.raises(CannotCopy, match="lossless"):
        copying(probe(film()), "lossless")


def test_open_groups_are_no_place_to_cut(film: Film) -> None:
    clip = probe(film(params="keyint=15:scenecut=0:open-gop=1:bframes=3"))
    found = copying(clip, "high")
    assert len(clip.keyframes) > 3 and found.entries.tolist() == [0], "only the first picture of such a film is an IDR"


def test_a_group_with_a_hidden_picture_is_not_copied(film: Film, tmp_path: Path) -> None:
    """Phones cut by an edit list: pictures after the end are in the file, hidden, and others refer to them."""
    source, cut = film(), tmp_path / "cut.mp4"
    with av.open(str(source)) as container, av.open(str(cut), "w", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(container.streams.video[0]):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    data = cut.read_bytes()
    place = data.index(b"elst")
    length = int.from_bytes(data[place + 12 : place + 16], "big")
    cut.write_bytes(data[: place + 12] + (length * 86 // 90).to_bytes(4, "big") + data[place + 16 :])
    clip = probe(cut)
    found = copying(clip, "high")
    assert clip.frames < 90 and found.whole[:75].all() and not found.whole[75:].any()
