"""The head's training program learns what is there to learn, also from somebody it never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from deployments.motion.clip_data import load_clip
from deployments.motion.head import APERTURE, run_head
from deployments.motion.phonemes import CLASSES, classes_of, frame_classes
from deployments.motion.train_head import Example, judge, learn, prepare


def test_timings_become_frames() -> None:
    labels = frame_classes((("b", 0.0, 0.1), ("I", 0.1, 0.3), ("_", 0.3, 0.4)), 20)
    names = [CLASSES[k] for k in labels]
    assert names[:5] == ["p"] * 5
    assert names[5:11] == ["a"] * 6 and names[11:15] == ["ih"] * 4
    assert set(names[15:]) == {"sil"}
    assert [CLASSES[k] for k in classes_of("tʃ")] == ["sh"]


def _planted(speaker: str, seed: int, delay: float) -> Example:
    """A mouth that is a fixed linear map of the features, `delay` seconds late."""
    rng = np.random.default_rng(seed)
    features = gaussian_filter1d(rng.normal(0, 1, (300, 212)), 4, axis=0).astype(np.float32)
    posteriors = np.zeros((300, len(CLASSES)), np.float32)
    opening = features[:, :4].mean(1)
    opening = (opening - opening.mean()) / opening.std()
    share = 1 / (1 + np.exp(-2 * opening))
    posteriors[:, CLASSES.index("a")], posteriors[:, 0] = share, 1 - share
    times = np.arange(0.3, 5.7, 0.04)
    one = np.interp(times - delay, (np.arange(300) + 0.5) / 50, opening)
    return Example(f"{speaker}{seed}", speaker, features, posteriors, np.repeat(one[:, None], 9, 1).astype(np.float32), times)


def test_planted_map_is_learned_and_delays_are_taken_out() -> None:
    examples = [_planted("early", 1, -0.08), _planted("even", 2, 0.0), _planted("late", 3, 0.12), _planted("late", 4, 0.12)]
    ensemble, aligned = learn(examples, 30, 1)
    found = {example.speaker: example.offset for example in aligned}
    assert found["late"] - found["early"] == pytest.approx(0.2, abs=0.06)
    scores = judge(aligned[2], run_head(examples[2].features, ensemble))
    assert scores["aperture"] > 0.7


@pytest.mark.clips
def test_head_beats_the_mean_pose_on_a_speaker_it_never_saw(clips_dir: Path, tmp_path: Path) -> None:
    folder = clips_dir / "public_domain"
    names = ("address_a1", "address_b1", "address_c1", "address_d1", "address_a2")
    examples = prepare([load_clip(folder / f"{name}.mp4", name[:-1], tmp_path) for name in names])
    held_out = [example for example in examples if example.speaker == "address_b"]
    ensemble, _ = learn([example for example in examples if example.speaker != "address_b"], 80, 1)
    for example in held_out:
        outputs = run_head(example.features, ensemble)
        at = example.times - judge(example, outputs)["offset_ms"] / 1000
        found = np.interp(at, (np.arange(len(outputs)) + 0.5) / 50, outputs[:, APERTURE])
        truth = example.measured[:, APERTURE]
        assert ((found - truth) ** 2).mean() < 0.95 * ((truth - truth.mean()) ** 2).mean()
