"""Log-mel features of speech at 100 frames per second.

Length rule: N samples at 16 kHz give ceil(N / 160) frames; frame k is centred on (k + 0.5) * 10 ms and looks 12.5 ms
to both sides (zeros outside the file).  Nothing else looks ahead, but the normalisation uses the whole utterance.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deployments.contracts import Speech
from deployments.errors import SpeechError

RATE = 16000
HOP = 160
WINDOW = 400
FFT = 512
BANDS = 80
FRAME_RATE = RATE / HOP
LOWEST_HZ = 50.0
HIGHEST_HZ = 7600.0
ACTIVE_DB = 35.0
# Below this a frame is quieter than the last bit of 16-bit sound; such a file has nothing to be normalised by.
SILENT_POWER = 1e-6
SILENT_LEVEL = -6.0


@lru_cache(maxsize=1)
def mel_filters() -> NDArray[np.float32]:
    """Triangular mel filters [80, 257] on the power spectrum (HTK mel scale), each summing to one."""
    mel = np.linspace(2595 * np.log10(1 + LOWEST_HZ / 700), 2595 * np.log10(1 + HIGHEST_HZ / 700), BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bins = np.arange(FFT // 2 + 1) * RATE / FFT
    low, mid, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = np.maximum(0, np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)))
    # The lowest bands are narrower than one FFT bin: give an empty band its nearest bin.
    for band in np.flatnonzero(filters.sum(1) < 1e-6):
        filters[band, np.argmin(np.abs(bins - edges[band + 1]))] = 1
    return (filters / filters.sum(1, keepdims=True)).astype(np.float32)


def mel_power(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mel power [ceil(N / 160), 80] of mono samples [N] at 16 kHz."""
    frames = -(-len(samples) // HOP)
    before = (WINDOW - HOP) // 2
    padded = np.zeros(frames * HOP + WINDOW, np.float32)
    padded[before : before + len(samples)] = samples
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[: frames * HOP : HOP]
    taper = np.hanning(WINDOW).astype(np.float32)
    out = np.empty((frames, BANDS), np.float32)
    # Blocks bound the memory for an hour of speech.
    for start in range(0, frames, 4096):
        spectrum = np.fft.rfft(windows[start : start + 4096] * taper, FFT, axis=1)
        out[start : start + 4096] = (np.abs(spectrum) ** 2).astype(np.float32) @ mel_filters().T
    return out


def normalise(power: NDArray[np.float32]) -> NDArray[np.float32]:
    """Utterance-normalised log-mel [F, 80] of mel power [F, 80].

    The mean of each band and one common deviation are taken over active frames only (within 35 dB of the loudest
    percent), so that the share of silence in a file does not move the features; a floor 70 dB below the loud frames
    keeps digital silence finite.
    """
    if len(power) == 0:
        return np.zeros((0, BANDS), np.float32)
    loudness = power.sum(1)
    peak = float(np.percentile(loudness, 99))
    if peak <= SILENT_POWER:
        return np.full(power.shape, SILENT_LEVEL, np.float32)
    log = np.log(np.maximum(power, peak / BANDS * 1e-7))
    active = loudness >= peak * 10 ** (-ACTIVE_DB / 10)
    mean = log[active].mean(0)
    deviation = max(float((log[active] - mean).std()), 0.5)
    return ((log - mean) / deviation).astype(np.float32)


def speech_at_16k(speech: Speech) -> NDArray[np.float32]:
    """Mono samples [N] float32 of `speech` at 16 kHz; raises SpeechError for no samples or samples that are not finite."""
    if speech.samples.ndim != 1 or len(speech.samples) == 0:
        raise SpeechError(
            f"expected mono speech with at least one sample, got shape {speech.samples.shape}; give another sound file"
        )
    if not np.isfinite(speech.samples).all():
        raise SpeechError("expected finite samples, got NaN or infinity in the speech; export the sound file again")
    if speech.rate == RATE:
        return speech.samples.astype(np.float32, copy=False)
    import soxr

    return np.asarray(soxr.resample(speech.samples.astype(np.float32), speech.rate, RATE), np.float32)
