"""The four verbs on a clip that shows a still."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from deployments.contracts import Span, Speech
from deployments.engines.portrait.engine import Portrait
from deployments.face.track import track_clip
from deployments.media.decode import decode
from deployments.media.encode import EncodeOptions, encode_new
from deployments.media.probe import probe


def test_a_clip_of_a_still_is_fitted_animated_and_rendered_in_any_chunks(tmp_path: Path) -> None:
    from skimage.data import astronaut

    photo = astronaut()
    path = tmp_path / "still.mp4"
    encode_new(512, 512, Fraction(25), iter([photo] * 12), None, EncodeOptions(), path)
    clip = probe(path)
    track = track_clip(clip, passes=1)
    engine = Portrait()
    avatar = engine.fit(clip, track, tmp_path / "avatar")
    t = np.arange(8000) / 16000
    speech = Speech((0.3 * np.sin(2 * np.pi * 150 * t) * (t > 0.1)).astype(np.float32), 16000)
    motion = engine.animate(speech, clip, track, avatar, {"mouth": 1.2})
    assert motion.coefficients.shape == (12, 8)

    def rendered(span: Span) -> list[np.ndarray]:
        patches = list(engine.render(avatar, motion, decode(clip, span), track, span))
        return [patch.rgb for patch in patches if patch is not None]

    whole = rendered(Span(0, 12))
    parts = rendered(Span(0, 5)) + rendered(Span(5, 12))
    assert len(whole) == 12
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
