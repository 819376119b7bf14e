"""An emotion on a filmed face: corners and brows go where it says, as far as it says, and only where speech is new."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deployments.contracts import Motion, Patch, Span
from deployments.engines.emo.brows import BROW, LID, TOP, axis, with_brows
from deployments.engines.emo.config import EmoConfig
from deployments.engines.emo.emotion import BROWS, emotion_of, worn
from deployments.engines.emo.engine import Emo
from deployments.errors import OptionError
from deployments.face.track import track_image
from deployments.media.decode import decode
from deployments.motion.dubbing import track_coefficients
from deployments.motion.ease import EASE
from deployments.portrait.controls import EMOTIONS, STRONGEST, Expression
from deployments.retrieval.bank import load_bank
from deployments.retrieval.corners import CORNERS, EXTRA, as_lips, corner_move
from deployments.retrieval.plan import Plan, PlanKey
from serve_app.request import check_options, read_choices

FRAME = 15
ENGINE = Emo(EmoConfig(sound_weight=0.0))


@pytest.fixture(scope="module")
def avatar(talking, tmp_path_factory: pytest.TempPathFactory):
    return ENGINE.fit(talking.clip, talking.track, tmp_path_factory.mktemp("emotion") / "avatar")


def own_motion(talking) -> Motion:
    stable = load_bank(talking.avatar.path).stable
    return Motion(track_coefficients(talking.track, stable), np.ones(talking.clip.frames, np.float32))


def points(talking, avatar, motion: Motion) -> np.ndarray:
    """Landmarks [V, 2] of one rendered frame."""
    picture = next(iter(decode(talking.clip, Span(FRAME, FRAME + 1))))
    patch = next(iter(ENGINE.render(avatar, motion, [picture], talking.track, Span(FRAME, FRAME + 1))))
    assert patch is not None
    return track_image(pasted(picture.rgb(), patch)).landmarks[0]


def pasted(rgb: np.ndarray, patch: Patch) -> np.ndarray:
    out = rgb.astype(np.float32)
    height, width = patch.alpha.shape
    window = out[patch.y : patch.y + height, patch.x : patch.x + width]
    window += patch.alpha[..., None] * (patch.rgb - window)
    return np.rint(out).astype(np.uint8)


def height(found: np.ndarray, of: tuple[int, ...]) -> float:
    """Mean height of points above the line of the eyes, in eye distances."""
    across, unit = axis(found)
    return float(-((found[list(of), :2] - found[33, :2]) @ np.array([-across[1], across[0]])).mean() / unit)


def with_emotion(talking, **strengths: float) -> Motion:
    motion = own_motion(talking)
    return replace(motion, extra=worn(emotion_of(strengths), motion, talking.track))


def test_corners_go_where_the_emotion_says_and_farther_the_stronger_it_is(talking, avatar) -> None:
    asked = [{"sad": 1.0}, {}, {"happy": 0.5}, {"happy": 1.0}, {"happy": 1.5}]
    lifts = [height(points(talking, avatar, with_emotion(talking, **one)), CORNERS) for one in asked]
    assert lifts == sorted(lifts)
    assert lifts[0] < lifts[1] - 0.02 and lifts[3] > lifts[1] + 0.02


def test_brows_rise_in_surprise_and_sink_in_anger_while_lids_stay(talking, avatar) -> None:
    angry, plain, surprised = (
        points(talking, avatar, with_emotion(talking, **one)) for one in ({"angry": 1.0}, {}, {"surprised": 1.0})
    )
    inner = (BROW[4], BROW[5], TOP[4], TOP[5])
    assert height(angry, inner) < height(plain, inner) - 0.01
    assert height(surprised, (*BROW, *TOP)) > height(plain, (*BROW, *TOP)) + 0.01
    for other in (angry, surprised):
        assert abs(height(other, LID) - height(plain, LID)) < 0.012


def test_lips_that_are_closed_stay_closed(talking) -> None:
    bank = load_bank(talking.avatar.path)
    move = corner_move(bank)
    assert np.abs(move[[13, 14]]).max() < 0.02, "the lips' middle stays"
    assert move[list(CORNERS), 1].max() < -0.9 and move[CORNERS[0], 0] < 0 < move[CORNERS[1], 0], "up and apart"
    assert np.abs(move[bank.mesh.reach == 0]).max() == 0
    motion = replace(own_motion(talking), extra={EXTRA: np.full(talking.clip.frames, 0.05, np.float32)})
    plain, lifted = (Plan(bank, one, talking.track, EmoConfig(sound_weight=0.0)) for one in (own_motion(talking), motion))
    gaps = [plan.target[:, 14, 1] - plan.target[:, 13, 1] for plan in (plain, lifted)]
    np.testing.assert_allclose(gaps[0], gaps[1], atol=1e-3)
    key, other = (PlanKey(talking.avatar, one, talking.track, EmoConfig()) for one in (own_motion(talking), motion))
    assert key != other


def test_mouths_that_were_filmed_so_are_nearest(talking) -> None:
    """Of two mouths of one opening, one with its corners lifted: the wish for such corners prefers it."""
    bank = load_bank(talking.avatar.path)
    move = as_lips(corner_move(bank))
    assert np.linalg.norm(move) > 0.3
    smiling = bank.coefficients.copy()
    smiling[::2] += 0.05 * move
    frames = talking.clip.frames
    motion = Motion(np.repeat(bank.coefficients[1:2], frames, 0), np.ones(frames, np.float32))
    config = EmoConfig(sound_weight=0.0, pose_weight=0.0, appearance_weight=0.0)
    chosen = []
    for lift in (0.0, 0.05):
        wish = replace(motion, extra={EXTRA: np.full(frames, lift, np.float32)})
        chosen.append(Plan(replace(bank, coefficients=smiling), wish, talking.track, config).choice.rows[:, 0] % 2)
    assert chosen[0].mean() > 0.9 and chosen[1].mean() < 0.1


def test_it_comes_and_goes_where_a_part_is_replaced(talking) -> None:
    motion = own_motion(talking)
    weight = motion.weight.copy()
    weight[:4] = 0
    extra = worn(emotion_of({"happy": 1.0, "surprised": 0.5}), replace(motion, weight=weight), talking.track)
    assert not extra[EXTRA][:4].any() and not extra[BROWS][:4].any()
    assert (np.diff(extra[EXTRA]) >= 0).all() and np.abs(np.diff(extra[EXTRA])).max() < 0.2 * extra[EXTRA].max()
    whole = EMOTIONS["happy"].corners
    np.testing.assert_allclose(extra[EXTRA][4 + EASE :], whole, rtol=1e-6)
    assert worn(Expression(), motion, talking.track) == {}


@pytest.mark.parametrize("asked", [{"happy": -0.1}, {"sad": STRONGEST + 0.1}, {"angry": float("nan")}])
def test_a_strength_out_of_range_is_refused(asked: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="0 is the face as filmed"):
        emotion_of(asked)
    with pytest.raises(OptionError):
        read_choices(None, None, [], "bored")
    check_options("emo", read_choices(None, None, [], "sad:0.4"))
    with pytest.raises(OptionError, match="expected an option of expression with video_rewrite, got 'happy'"):
        check_options("video_rewrite", read_choices(None, None, [], "happy"))


def test_brows_stop_before_skin_folds_or_lashes_stretch(talking) -> None:
    picture = next(iter(decode(talking.clip, Span(FRAME, FRAME + 1))))
    found = talking.track.landmarks[FRAME]
    most = with_brows(None, picture, found, 0.2)
    more = with_brows(None, picture, found, 0.4)
    assert most is not None and more is not None
    assert np.abs(pasted(picture.rgb(), most).astype(int) - pasted(picture.rgb(), more)).max() <= 2
