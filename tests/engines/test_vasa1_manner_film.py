"""A photo that moves its head as an avatar's person does, from the command's request to the tracked film; and what is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from deployments.contracts import Avatar, Span
from deployments.engines.vasa1.latents import HEAD, LATENT, measure
from deployments.engines.vasa1.manner import FILE, Manner, save_manner
from deployments.errors import InputError, LipSyncError, OptionError, WeightsError
from deployments.face.track import track_image
from deployments.media.decode import decode
from deployments.media.probe import probe
from serve_app.cache import Cache
from serve_app.manner import MANNER_FILE
from serve_app.portrait import PortraitRequest, run_portrait
from serve_app.request import SpeechSource

WORDS = "We walked along the river, and nobody had expected the letter."
YAW, PITCH, ROLL = range(HEAD.start, HEAD.start + 3)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "me.png"
    cv2.imwrite(str(path), data.astronaut()[20:276, 100:356, ::-1])
    return path


def avatar(folder: Path, scale: tuple[float, ...] = (), engine: str = "vasa1", size: int = LATENT) -> Path:
    """A fitted avatar whose person turns, nods and tilts the head by these factors of everybody's."""

    def fit(place: Path) -> Avatar:
        (place / "weights").write_bytes(b"what was learned")
        if scale:
            own = np.ones(size, np.float32)
            own[YAW : ROLL + 1] = scale
            save_manner(Manner(own), place / FILE)
        return Avatar(engine, place, "d")

    return Cache(folder).avatar("key", fit).path


def turns(film: Path) -> NDArray[np.float64]:
    """Deviation of yaw, pitch and roll over a film, tracked picture by picture."""
    clip = probe(film)
    faces = [
        measure(track_image(picture.rgb()).landmarks).latents[0] for picture in list(decode(clip, Span(0, clip.frames)))[::6]
    ]
    return np.asarray(np.std(faces, axis=0)[YAW : ROLL + 1], np.float64)


def test_the_films_head_moves_as_far_as_the_avatars_person_moves_it(photo: Path, tmp_path: Path) -> None:
    seen = []
    for name, scale in (("plain", ()), ("own", (4.0, 0.3, 1.0))):
        manner = avatar(tmp_path / name, scale) if scale else None
        request = PortraitRequest(photo, SpeechSource(text=WORDS), tmp_path / f"{name}.mp4", engine="vasa1", manner=manner)
        seen.append(turns(run_portrait(request)))
    plain, own = seen
    assert own[0] > 2 * plain[0], "turns further"
    assert own[1] < 0.75 * plain[1], "nods less"
    assert own[0] / own[1] > 2.5 * plain[0] / plain[1]


def test_only_an_avatar_that_has_a_manner_is_taken(photo: Path, tmp_path: Path) -> None:
    damaged = avatar(tmp_path / "damaged", (2, 2, 2))
    (damaged / FILE).write_bytes(b"x" * (damaged / FILE).stat().st_size)
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    wrong: list[tuple[str, Path, type[LipSyncError], str]] = [
        ("vasa1", tmp_path / "none", InputError, "check the path"),
        ("vasa1", nothing, InputError, "lipsync fit CLIP --engine vasa1"),
        ("vasa1", avatar(tmp_path / "shared"), OptionError, "manner of its own"),
        ("vasa1", avatar(tmp_path / "other", engine="video_rewrite"), OptionError, "got one of video_rewrite"),
        ("vasa1", damaged, WeightsError, "safetensors"),
        ("vasa1", avatar(tmp_path / "misshapen", (2, 2, 2), size=20), WeightsError, "18 latents"),
        ("portrait", avatar(tmp_path / "good", (2, 2, 2)), OptionError, "portraits of vasa1"),
    ]
    for engine, folder, kind, words in wrong:
        request = PortraitRequest(photo, SpeechSource(text=WORDS), tmp_path / "out.mp4", engine=engine, manner=folder)
        with pytest.raises(kind, match=words):
            run_portrait(request, lambda stage, done, total: pytest.fail("no work has begun"))
    assert not (tmp_path / "out.mp4").exists()


def test_published_weights_take_no_manner(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_LIVEPORTRAIT", str(tmp_path))
    manner = avatar(tmp_path / "good", (2, 2, 2))
    with pytest.raises(OptionError, match="LivePortrait"):
        run_portrait(PortraitRequest(photo, SpeechSource(text=WORDS), tmp_path / "out.mp4", engine="vasa1", manner=manner))


def test_the_commands_name_of_the_file_is_the_engines() -> None:
    assert MANNER_FILE == FILE
