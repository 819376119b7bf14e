"""One person's way of moving the head: learned where it is told from everybody's, left alone where it is not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.audio.features import speech_at_16k
from deployments.audio.tts import synthesize
from deployments.contracts import Speech
from deployments.engines.vasa1.config import MannerConfig
from deployments.engines.vasa1.latents import EMOTION, HEAD, LATENT, LID, LIPS
from deployments.engines.vasa1.manner import FILE, MOVED, Manner, learn_manner, load_manner, moved_by, save_manner, style_distance
from deployments.engines.vasa1.motion import load_transformer
from deployments.engines.vasa1.portrait import PortraitOptions, face_motion
from deployments.engines.vasa1.speech_input import frame_times, hear
from deployments.engines.vasa1.train import Passage
from deployments.motion.head import predict

QUICK = MannerConfig(batches=4, batch=8)


@cache
def sound() -> NDArray[np.float32]:
    words = "The harbour was quiet that morning, and nobody had expected the letter. " * 3
    return speech_at_16k(synthesize(words))[: 9 * 16000]


@cache
def audio() -> NDArray[np.float32]:
    return hear(predict(sound()), frame_times(len(sound()) / 16000))


def passage(latents: NDArray[np.float32]) -> Passage:
    """Somebody who moves as the latents [T, 18] say, in the shared spreads."""
    spread = np.where(np.arange(LATENT) < LIPS.stop, 1, load_transformer().latent_spread.numpy())
    size = len(latents)
    known = np.ones(LATENT, np.float32)
    return Passage(
        "own", audio(), (latents * spread).astype(np.float32), np.zeros((size, EMOTION), np.float32), known, np.ones(size)
    )


@cache
def lively() -> NDArray[np.float32]:
    """Everybody's motion, with a head that swings wide and slowly."""
    made, t = moved_by(Manner(), audio(), 3).copy(), np.arange(len(audio())) / 25
    for number, column in enumerate(MOVED):
        made[:, column] = 2.5 * np.sin(2 * np.pi * (0.3 + 0.07 * number) * t + number)
    return made


def test_a_person_who_moves_unlike_everybody_is_learned_and_recognised_in_unseen_sound() -> None:
    manner, facts = learn_manner(passage(lively()), QUICK)
    assert facts["manner"].startswith("scale") and facts["distances"][facts["manner"]] < 0.7 * facts["distances"]["shared"]
    cut = int(len(audio()) * (1 - QUICK.held_out))
    judged = [style_distance(m, audio()[cut:], lively()[cut:], (7,)) for m in (Manner(), manner)]
    assert judged[1] < 0.7 * judged[0], "with noise that did not choose it"
    again, _ = learn_manner(passage(lively()), QUICK)
    assert np.array_equal(again.scale, manner.scale)
    assert (manner.change is None) == (again.change is None) and (
        manner.change is None or np.array_equal(again.change, manner.change)
    )


def test_a_person_who_moves_like_everybody_keeps_the_shared_manner() -> None:
    manner, facts = learn_manner(passage(moved_by(Manner(), audio(), 3)), QUICK)
    print(facts)
    assert facts["manner"] == "shared" and manner.change is None and (manner.scale == 1).all()


def test_too_little_is_not_learned_from() -> None:
    short = passage(lively())
    short = replace(short, usable=(np.arange(len(audio())) < 60).astype(np.float32))
    assert learn_manner(short, QUICK)[1] == {"manner": "shared"}


def test_a_manner_moves_the_head_and_nothing_else_of_the_scale(tmp_path: Path) -> None:
    change = np.zeros((LATENT, 193), np.float32)
    change[8, -1] = 0.5
    scale = np.ones(LATENT, np.float32)
    scale[8] = 2.0
    save_manner(Manner(scale, change), tmp_path / FILE)
    found = load_manner(tmp_path)
    assert np.array_equal(found.scale, scale) and found.change is not None and np.array_equal(found.change, change)
    assert load_manner(tmp_path / "none").change is None
    speech = Speech(sound()[: 2 * 16000], 16000)
    before = load_transformer().out.bias.clone()
    (lips, own), (same_lips, shared) = (face_motion(speech, PortraitOptions(manner=m)) for m in (found, Manner()))
    assert bool((load_transformer().out.bias == before).all()), "the shared transformer stays as it was"
    assert own[:, 8].mean() > shared[:, 8].mean() + 0.5
    assert np.abs(lips.coefficients - same_lips.coefficients).max() < 0.05 and np.abs(own[:, LID] - shared[:, LID]).max() < 1.5
    assert np.abs(own[:, HEAD]).max() < 8
