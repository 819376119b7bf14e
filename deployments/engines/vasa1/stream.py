"""A portrait for speech that is still coming: sound in pieces of any size, frames with bounded look-ahead.

Windows follow one another by a few frames and are told what came before, as offline; what lies beyond the sound is the
last of it, held. Frames do not depend on how the sound was cut into pieces. They differ from offline ones: levels are
judged by the last seconds instead of the whole speech, and the speech net hears 0.2 s ahead instead of 0.65.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.contracts import Motion
from deployments.engines.vasa1.config import FaceConfig, StreamConfig
from deployments.engines.vasa1.face import REACH, Moving, asked_latents, lids_of, placed, smoothed
from deployments.engines.vasa1.latents import LATENT, LID, LIPS, RATE
from deployments.engines.vasa1.manner import Manner, load_manner
from deployments.engines.vasa1.mood import FRAME, Mood, amplitudes
from deployments.engines.vasa1.motion import Told, load_transformer, mixed_lips, placed_lips
from deployments.engines.vasa1.portrait import PortraitOptions, guidance_of_face
from deployments.engines.vasa1.sampling import denoise, noise_of
from deployments.engines.vasa1.speech_input import hear
from deployments.engines.vasa1.transformer import CONTROL_SIZES, CONTROLS, Conditions
from deployments.errors import SpeechError
from deployments.portrait.draw import PortraitRenderer, render_frames
from deployments.portrait.move import generic_mouth

if TYPE_CHECKING:
    from deployments.portrait.draw import Pose
    from deployments.portrait.model import PortraitModel

Floats = NDArray[np.float32]


def warm_up() -> None:
    """Load what the first caller would wait for. Raises WeightsError."""
    from deployments.motion.head import predict

    load_transformer()
    predict(np.zeros(8 * FRAME, np.float32))


def open_stream(picture: NDArray[np.uint8], options: dict[str, Any], avatar: Path | None = None) -> PortraitStream:
    """A photo [H, W, 3] that waits for speech, for a server; it moves its head as the person of the avatar's folder does.

    Raises MediaError, NoFaceError, OptionError, WeightsError.
    """
    from deployments.portrait.controls import Controls
    from deployments.portrait.film import fit_picture

    controls = Controls(**{name: options[name] for name in ("emotion", "gaze", "distance") if name in options})
    manner = Manner() if avatar is None else load_manner(avatar)
    asked = PortraitOptions(mouth=float(options.get("expression", 1.0)), controls=controls, manner=manner)
    return PortraitStream(fit_picture(picture, "largest"), asked)


class PortraitStream:
    """One speech on its way: `push` sound as it comes, `finish` when it has ended; both give frames [H, W, 3]."""

    def __init__(self, model: PortraitModel, options: PortraitOptions | None = None, config: StreamConfig | None = None) -> None:
        self.poses = PoseStream(model, options, config)
        self._renderer, self._photo = PortraitRenderer(model), model.photo

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self._photo.shape[0], self._photo.shape[1]

    @property
    def look_ahead(self) -> float:
        """Seconds of sound that a frame waits for, at most."""
        return (self.poses.config.hop + self.poses.config.ahead) / RATE

    def push(self, samples: Floats) -> Iterator[NDArray[np.uint8]]:
        """Frames that can be made now that more mono sound [N] at 16 kHz is here. Raises SpeechError."""
        return render_frames(self._renderer, self.poses.push(samples), self._photo)

    def finish(self) -> Iterator[NDArray[np.uint8]]:
        """The last frames."""
        return render_frames(self._renderer, self.poses.finish(), self._photo)


class PoseStream:
    """The same, giving poses of the face."""

    def __init__(self, model: PortraitModel, options: PortraitOptions | None = None, config: StreamConfig | None = None) -> None:
        self.options, self.config = options or PortraitOptions(), config or StreamConfig()
        self.frames = 0  # made so far
        self._model = model
        self._network = self.options.manner.network(load_transformer())
        self._guidance = replace(guidance_of_face(self.options.seed, self.config.steps), together=True)
        self._sound = np.zeros(0, np.float32)
        self._dropped = 0  # frames of sound before what is kept
        size = self._network.config
        self._past = np.zeros((max(size.before, REACH), LATENT), np.float32)
        self._ahead = np.zeros((0, LATENT), np.float32)  # the last window's frames that were not shown
        self._last_blink = -1000
        self._mood = Mood()

    def push(self, samples: Floats) -> Iterator[Pose]:
        """Poses that can be made now that more mono sound [N] at 16 kHz is here. Raises SpeechError."""
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise SpeechError(f"expected finite mono samples [N] at 16 kHz, got {samples.shape}; decode them again")
        self._sound = np.concatenate([self._sound, samples.astype(np.float32)])
        while self._dropped + len(self._sound) // FRAME >= self.frames + self._hop + self.config.ahead:
            yield from self._poses(self._hop)

    def finish(self) -> Iterator[Pose]:
        """The last poses."""
        total = self._dropped - (-len(self._sound) // FRAME)
        while self.frames < total:
            yield from self._poses(min(self._hop, total - self.frames))

    @property
    def kept_seconds(self) -> float:
        """Length of the sound that is kept."""
        return len(self._sound) / 16000

    @property
    def _hop(self) -> int:
        return self.config.hop if self.frames else self.config.first

    def _poses(self, count: int) -> list[Pose]:
        """The next poses; afterwards they count as shown."""
        known = min(self._dropped + len(self._sound) // FRAME + 1, self.frames + self._hop + self.config.ahead)
        heard_to = max(1, min(len(self._sound), (known - self._dropped) * FRAME))
        sound = self._sound[max(0, heard_to - int(self.config.memory * 16000)) : heard_to]
        start = self._dropped + (heard_to - len(sound)) / FRAME
        made, motion = self._window(sound, start, count)
        around = np.concatenate([self._past[-REACH:], made[: count + REACH]]) * self.options.manner.scale
        smooth = smoothed(around.astype(np.float64), FaceConfig().smooth)[REACH : REACH + count]
        lids, last = lids_of(made[:count, LID].astype(np.float64), smooth[:, LID], FaceConfig(), self._last_blink)
        frames = np.arange(self.frames, self.frames + count)
        now = self._sound[max(0, self.frames - self._dropped) * FRAME :]
        moving = Moving(frames, smooth, lids, self._mood.wear(amplitudes(now, count)))
        poses = placed(self._model, motion, moving, self.options.controls, self.options.head_motion, FaceConfig())
        self._past = np.concatenate([self._past, made[:count]])[-len(self._past) :]
        self._ahead, self._last_blink, self.frames = made[count:], last - count, self.frames + count
        self._forget()
        return poses

    def _window(self, sound: Floats, start: float, count: int) -> tuple[Floats, Motion]:
        """Latents [W, 18] from the next frame on, and lips of the first `count`; `start` is the sound's first frame."""
        from deployments.motion.head import predict

        size, prediction = self._network.config, predict(sound)
        frames = np.arange(self.frames - size.before, self.frames + size.window)
        times = np.clip((frames - start) / RATE, 0, len(sound) / 16000)
        heard = hear(prediction, times)
        made = self._sample(heard)
        mixed = min(size.overlap, len(self._ahead))
        fade = ((np.arange(mixed) + 1) / (mixed + 1))[:, None].astype(np.float32)
        made[:mixed] = fade * made[:mixed] + (1 - fade) * self._ahead[:mixed]
        part = slice(size.before, size.before + count)
        told = Told.by(heard, generic_mouth()).part(part)
        return made, self._lips(made[:count], told, prediction, times[part], len(sound) / 16000)

    @torch.inference_mode()
    def _sample(self, heard: Floats) -> Floats:
        size = self._network.config
        controls = asked_latents(self.options.controls)
        rows = {n: controls.get(n, np.zeros(CONTROL_SIZES[n], np.float32)) for n in CONTROLS}
        keep = {"audio": 1.0, "before": float(self.frames >= size.before)} | {n: float(n in controls) for n in CONTROLS}
        told = Conditions(
            torch.from_numpy(heard)[None],
            torch.from_numpy(self._past[-size.before :].copy())[None],
            {n: torch.from_numpy(row)[None] for n, row in rows.items()},
            {n: torch.tensor([share]) for n, share in keep.items()},
        )
        noise = self._guidance.temperatures() * noise_of(self._guidance.seed, self.frames, self.frames + size.window)
        return np.asarray(denoise(self._network, torch.from_numpy(noise)[None], told, self._guidance)[0].numpy(), np.float32)

    def _lips(self, made: Floats, told: Told, prediction: Any, times: NDArray[np.float64], seconds: float) -> Motion:
        from deployments.contracts import Speech
        from deployments.motion.animate import close_lips, closure_weight, pause_weight

        template = generic_mouth()
        lips = mixed_lips(made[:, LIPS] * self._network.lip_gain.numpy(), told)
        at_frames = placed_lips(lips, template, 1.0).astype(np.float64)
        quiet = pause_weight(prediction, times, seconds)
        coefficients = at_frames + quiet[:, None] * (template.rest - at_frames)
        untold = Speech(np.zeros(0, np.float32), 16000)  # no phonemes: closures are what the net hears
        coefficients = close_lips(coefficients, closure_weight(prediction, untold, times), template)
        scaled = template.rest + self.options.mouth * (coefficients - template.rest)
        return Motion(scaled.astype(np.float32), np.ones(len(made), np.float32), {"source": "diffusion transformer"})

    def _forget(self) -> None:
        """Let go of whole frames of sound that no window hears again."""
        keep = int(self.config.memory * RATE) + self.config.hop
        gone = max(0, len(self._sound) // FRAME - max(keep, self._dropped + len(self._sound) // FRAME - self.frames + keep))
        self._sound, self._dropped = self._sound[gone * FRAME :], self._dropped + gone
