"""How one person moves the head while speaking: a small adapter of the transformer, learned from a template's own motion.

Two things are learned, both in closed form. How far each part of the head moves: the person's deviation over the shared
one. And when: a correction of the transformer's last layer for head and brows, of low rank, by ridge regression from what
the layer sees of the person's own sound and noised motion to what it got wrong. The last quarter of the template is not
learned from; whatever does not move more like the person there is left out. Lips, lids and gaze stay the shared ones.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deployments.engines.vasa1.config import FaceConfig, MannerConfig
from deployments.engines.vasa1.latents import BROW, LATENT, LIPS, RATE
from deployments.errors import WeightsError

if TYPE_CHECKING:
    from deployments.contracts import Clip, Track
    from deployments.engines.vasa1.train import Passage
    from deployments.engines.vasa1.transformer import MotionTransformer

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

FILE = "manner.safetensors"
MOVED = (8, 9, 10, 11, 12, BROW)  # yaw, pitch, roll, place of the head, brows
BEFORE = 0.8  # of the windows are told what came before
RANGE = (0.4, 5.0)  # of the deviations' ratio: what lies beyond is a bad track


def _same() -> Floats:
    return np.ones(LATENT, np.float32)


@dataclass(frozen=True)
class Manner:
    """One person's; the default is everybody's."""

    scale: Floats = field(default_factory=_same)  # [18] of the transformer's latents
    change: Floats | None = None  # [18, 193] added to the last layer's weights, the last column to its bias

    def network(self, shared: MotionTransformer) -> MotionTransformer:
        """The transformer as this person's; the shared one stays as it is."""
        if self.change is None:
            return shared
        import torch

        own = copy.copy(shared)
        own._modules = {**shared._modules, "out": copy.deepcopy(shared.out)}
        with torch.no_grad():
            own.out.weight.add_(torch.from_numpy(self.change[:, :-1]))
            own.out.bias.add_(torch.from_numpy(self.change[:, -1]))
        return own


@dataclass(frozen=True)
class Trial:
    """How far generated motion is from the person's own on frames that were not learned from."""

    name: str
    manner: Manner
    distance: float


def learn_from(clip: Clip, track: Track, out: Path, config: MannerConfig) -> dict[str, Any]:
    """Learn the manner of a clip's person into the folder `out`; what was found, for the avatar's facts."""
    from deployments.motion.dubbing import template_sound

    sound = template_sound(clip)
    frames, times = int(track.usable.sum()), clip.times()
    if sound is None or min(frames * times[-1] / len(times), len(sound) / 16000) < config.seconds:
        return {"manner": "shared"}
    from deployments.engines.vasa1.train import real_passages
    from deployments.motion.clip_data import SpokenClip

    spoken = SpokenClip("own", "own", track.landmarks, track.usable, track.shot, times, sound)
    manner, facts = learn_manner(real_passages([spoken])[0], config)
    if manner.change is not None or (manner.scale != 1).any():
        save_manner(manner, out / FILE)
    return facts


def learn_manner(passage: Passage, config: MannerConfig) -> tuple[Manner, dict[str, Any]]:
    """The manner of a template's person, and what was found; everybody's where nothing else is nearer to the person."""
    frames = len(passage.audio)
    if float(passage.usable.sum()) < config.seconds * RATE:
        return Manner(), {"manner": "shared"}
    from deployments.engines.vasa1.motion import load_transformer

    shared, cut = load_transformer(), int(frames * (1 - config.held_out))
    spread = shared.latent_spread.numpy()
    latents = np.asarray(passage.latents / np.where(np.arange(LATENT) < LIPS.stop, 1, spread), np.float32)
    told = latents[:cut][passage.usable[:cut] > 0]
    scale = _same()
    scale[list(MOVED)] = np.clip(told.std(0)[list(MOVED)], *RANGE)
    own = np.clip(latents / scale, -4, 4).astype(np.float32)
    layers = _layers(shared, passage.audio[:cut], own[:cut], passage.usable[:cut], config)
    named = {"shared": Manner(), "scale": Manner(scale)}
    named |= {f"scale, change {ridge:g}": Manner(scale, change) for ridge, change in zip(config.ridges, layers, strict=True)}
    judged = slice(cut, cut + int(config.judged * RATE))
    trials = [
        Trial(name, m, style_distance(m, passage.audio[judged], latents[judged], config.seeds)) for name, m in named.items()
    ]
    best = min(trials, key=lambda trial: trial.distance)
    kept = best if best.distance < (1 - config.gain) * trials[0].distance else trials[0]
    return kept.manner, {"manner": kept.name, "distances": {trial.name: round(trial.distance, 3) for trial in trials}}


def _layers(shared: MotionTransformer, audio: Floats, latents: Floats, usable: Floats, config: MannerConfig) -> list[Floats]:
    """Corrections [18, 193] of the last layer, one for each ridge."""
    seen, wrong = _seen(shared, audio, latents, usable, config)
    mean = seen.mean(0)
    gram, target = (seen - mean).T @ (seen - mean) / len(seen), (seen - mean).T @ (wrong - wrong.mean(0)) / len(seen)
    size = float(np.trace(gram)) / len(gram)
    out = []
    for ridge in config.ridges:
        weights = np.linalg.solve(gram + ridge * size * np.eye(len(gram)), target)
        left, sizes, right = np.linalg.svd(weights, full_matrices=False)
        weights = (left[:, : config.rank] * sizes[: config.rank]) @ right[: config.rank]
        change = np.zeros((LATENT, len(gram) + 1), np.float32)
        change[list(MOVED), :-1] = weights.T
        change[list(MOVED), -1] = wrong.mean(0) - mean @ weights
        out.append(change)
    return out


def _seen(
    shared: MotionTransformer, audio: Floats, latents: Floats, usable: Floats, config: MannerConfig
) -> tuple[Doubles, Doubles]:
    """What the last layer sees [N, 192] of windows at random noise, and what it lacks [N, 6] of the true motion."""
    import torch

    from deployments.engines.vasa1.latents import EMOTION
    from deployments.engines.vasa1.train import Passage, gather
    from deployments.engines.vasa1.transformer import CONTROL_SIZES, CONTROLS, Conditions, signal_share

    rng = np.random.default_rng(config.seed)
    passage = Passage("own", audio, latents, np.zeros((len(audio), EMOTION), np.float32), np.ones(LATENT, np.float32), usable)
    kept: list[torch.Tensor] = []
    hook = shared.norm.register_forward_hook(lambda module, given, made: kept.append(made[:, -shared.config.window :]))
    seen, wrong = [], []
    try:
        for _ in range(config.batches):
            lot = gather([passage] * config.batch, shared.config, rng)
            clean = lot.latents[:, shared.config.before :]
            moment = torch.from_numpy(rng.random(config.batch).astype(np.float32))
            share = signal_share(moment)[:, None, None]
            noise = torch.from_numpy(rng.standard_normal(clean.shape).astype(np.float32))
            keep = {
                "audio": torch.ones(config.batch),
                "before": torch.from_numpy((rng.random(config.batch) < 0.8).astype(np.float32)),
            }
            keep |= {name: torch.zeros(config.batch) for name in CONTROLS}
            controls = {name: torch.zeros(config.batch, size) for name, size in CONTROL_SIZES.items()}
            told = Conditions(lot.audio, lot.latents[:, : shared.config.before], controls, keep)
            with torch.inference_mode():
                made = shared(share.sqrt() * clean + (1 - share).sqrt() * noise, moment, told)
            known = lot.weight[..., 0].numpy() > 0
            seen.append(kept.pop().numpy()[known])
            wrong.append((clean - made).numpy()[known][:, list(MOVED)])
    finally:
        hook.remove()
    return np.concatenate(seen).astype(np.float64), np.concatenate(wrong).astype(np.float64)


def moved_by(manner: Manner, audio: Floats, seed: int) -> Floats:
    """Latents [T, 18] in the shared spreads that a manner gives to sound."""
    from deployments.engines.vasa1.motion import load_transformer
    from deployments.engines.vasa1.portrait import guidance_of_face
    from deployments.engines.vasa1.sampling import sample

    return sample(manner.network(load_transformer()), audio, {}, guidance_of_face(seed)) * manner.scale


def style_distance(manner: Manner, audio: Floats, latents: Floats, seeds: Sequence[int]) -> float:
    """Mean distance of the logs of deviation and speed between generated motion and the true one [T, 18]."""
    own = style(latents)
    made = np.mean([style(moved_by(manner, audio, seed)) for seed in seeds], axis=0)
    return float(np.abs(made - own).mean())


def style(latents: Floats) -> Doubles:
    """Logs of deviation and mean speed [2, 6] of what moves, smoothed as it is shown."""
    from deployments.engines.vasa1.face import smoothed

    smooth = smoothed(latents[:, list(MOVED)].astype(np.float64), FaceConfig().smooth)
    return np.log(np.maximum([smooth.std(0), np.abs(np.diff(smooth, axis=0)).mean(0) * RATE], 1e-4))


def save_manner(manner: Manner, path: Path) -> None:
    """As safetensors."""
    from safetensors.numpy import save

    from deployments.records import write_atomic

    change = {} if manner.change is None else {"change": manner.change}
    write_atomic(path, save({"scale": manner.scale, **change}))


def load_manner(folder: Path) -> Manner:
    """Of an avatar's folder; everybody's where none was learned. Raises WeightsError."""
    from deployments.weights import load_tensors

    if not (folder / FILE).is_file():
        return Manner()
    found = load_tensors(folder / FILE, "scale")
    scale, change = found["scale"], found.get("change")
    if scale.shape != (LATENT,) or (change is not None and change.shape[0] != LATENT):
        raise WeightsError(f"expected a manner of {LATENT} latents in {folder / FILE}, got others; fit the avatar again")
    return Manner(scale, change)
