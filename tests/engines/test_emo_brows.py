"""Brows rise with the stress of the new speech, and nothing else above the mouth moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deployments.contracts import Motion, Patch, Span, Speech
from deployments.engines.emo.brows import BROW, HOP, LID, LIFT, TOP, axis, liveliness_of, rise_of, stress, with_brows
from deployments.engines.emo.config import EmoConfig
from deployments.engines.emo.engine import Emo
from deployments.errors import OptionError
from deployments.face.landmarks import LIPS_OUTER
from deployments.face.track import track_image
from deployments.media.decode import decode

TIMES = np.arange(75) / 25


def spoken(loud: tuple[float, ...]) -> np.ndarray:
    """Three seconds of a hum at 16 kHz, every 0.5 s a syllable, those at times `loud` four times as loud."""
    time = np.arange(3 * 16000) / 16000
    heights = np.where(np.isin(np.round(time * 2) / 2, loud), 0.4, 0.1)
    return (heights * np.exp(-0.5 * ((time * 2 - np.round(time * 2)) / 0.2) ** 2) * np.sin(900 * time)).astype(np.float32)


def shown(rgb: np.ndarray, patch: Patch) -> np.ndarray:
    out = rgb.astype(np.float32)
    window = out[patch.y : patch.y + patch.alpha.shape[0], patch.x : patch.x + patch.alpha.shape[1]]
    window += patch.alpha[..., None] * (patch.rgb - window)
    return np.rint(out).astype(np.uint8)


def heights(points: np.ndarray, of: tuple[int, ...]) -> float:
    """Mean height of points over the line of the eyes, in eye distances."""
    across, unit = axis(points)
    return float(-((points[of, :2] - points[33, :2]) @ np.array([-across[1], across[0]])).mean() / unit)


def test_stress_is_on_the_loud_syllables_a_little_before_they_are_heard() -> None:
    found = stress(spoken((1.0, 2.0)), TIMES)
    assert found.min() == 0 and 0.5 < found.max() <= 1
    for moment in (1.0, 2.0):
        near = np.abs(TIMES - moment) < 0.3
        assert 0.05 < moment - TIMES[near][found[near].argmax()] < 0.25
    assert found[np.abs(TIMES - 1.4) < 0.1].max() < 0.3


def test_silence_a_steady_tone_and_no_sound_stress_nothing() -> None:
    for samples in (np.zeros(48000), np.zeros(0), 0.1 * np.sin(np.arange(48000) * 0.2)):
        assert stress(samples.astype(np.float32), TIMES)[10:60].max() < 0.05
    assert not stress(np.full(int(HOP * 16000), 0.1, np.float32), TIMES).any()


def test_brows_rise_as_far_as_they_are_told_and_lids_mouth_and_border_stay(talking) -> None:
    picture = next(iter(decode(talking.clip, Span(3, 4))))
    points, rgb, lift = talking.track.landmarks[3], picture.rgb(), 0.03
    patch = with_brows(None, picture, points, lift)
    assert patch is not None
    raised = shown(rgb, patch)
    before, after = (track_image(frame).landmarks[0] for frame in (rgb, raised))
    rise = heights(after, (*BROW, *TOP)) - heights(before, (*BROW, *TOP))
    assert 0.5 * lift < rise < 1.3 * lift
    assert abs(heights(after, LID) - heights(before, LID)) < 0.4 * rise
    changed = np.argwhere((raised != rgb).any(-1))
    assert changed[:, 0].max() <= points[list(LID), 1].max() + 1, "nothing below the lids"
    assert max(patch.alpha[:, 0].max(), patch.alpha[:, -1].max(), patch.alpha[-1].max()) < 0.2
    rise_field = rise_of(points, picture.size(), lift)
    assert rise_field is not None and rise_field.way.max() <= lift * (1 + 1e-6)


def test_a_mouth_patch_is_the_same_under_raised_brows(talking) -> None:
    picture = next(iter(decode(talking.clip, Span(3, 4))))
    points = talking.track.landmarks[3]
    lips = points[list(LIPS_OUTER), :2]
    x, y = (lips.min(0) - 10).astype(int) // 2 * 2
    mouth = Patch(int(x), int(y), np.full((40, 60, 3), 90, np.uint8), np.full((40, 60), 0.7, np.float32))
    assert with_brows(mouth, picture, points, 0.0) is mouth
    both = with_brows(mouth, picture, points, 0.02)
    alone = with_brows(None, picture, points, 0.02)
    assert both is not None and alone is not None
    np.testing.assert_array_equal(shown(picture.rgb(), both), shown(shown(picture.rgb(), alone), mouth))


def test_a_forehead_out_of_the_picture_is_left_alone(talking) -> None:
    picture = next(iter(decode(talking.clip, Span(3, 4))))
    high = talking.track.landmarks[3] - np.array([0, 1000, 0], np.float32)
    assert with_brows(None, picture, high, 0.02) is None


def test_the_engine_raises_brows_where_the_speech_is_new_and_only_then(talking, tmp_path: Path) -> None:
    config = EmoConfig()
    engine = Emo(replace(config, fit=replace(config.fit, smallest=10**6)))
    avatar = engine.fit(talking.clip, talking.track, tmp_path)
    speech = Speech(spoken((0.5, 1.0)), 16000)
    told = {o: engine.animate(speech, talking.clip, talking.track, avatar, {"liveliness": o}).extra for o in (0.0, 1.0, 2.0)}
    assert LIFT not in told[0.0] and 0 < told[1.0][LIFT].max() < 0.03
    np.testing.assert_allclose(told[2.0][LIFT], 2 * told[1.0][LIFT], rtol=1e-5)
    frame = int(told[1.0][LIFT].argmax())
    span = Span(frame, frame + 1)
    motion = engine.animate(speech, talking.clip, talking.track, avatar, {})
    motion = replace(motion, weight=np.ones_like(motion.weight))

    def top(motion: Motion) -> int:
        (patch,) = engine.render(avatar, motion, decode(talking.clip, span), talking.track, span)
        return patch.y

    lids = talking.track.landmarks[frame][list(LID), 1].min()
    assert top(motion) < lids < top(replace(motion, extra={**motion.extra, LIFT: 0 * motion.extra[LIFT]}))
    assert engine.animate(speech, talking.clip, talking.track, avatar, {"expression": 0}).extra.get(LIFT) is None


@pytest.mark.parametrize("amount", [-0.1, 2.1, float("nan")])
def test_liveliness_out_of_range_is_refused(amount: float) -> None:
    with pytest.raises(OptionError, match="liveliness of 0 to 2"):
        liveliness_of({"liveliness": amount})
