"""Settings of the engine; every figure says why."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployments.retrieval.config import RetrievalConfig


@dataclass(frozen=True)
class FitConfig:
    """How the Gaussians are learned. Rates are for Adam and fall along a cosine."""

    steps: int = 400  # pictures of unseen mouths stop improving at about 300
    check_every: int = 60  # steps between looks at the held-out frames
    patience: int = 3  # looks without gain before it stops
    held_out: float = 0.08  # share of the frames, the last ones: neighbours of training frames would flatter
    side: int = 240  # pixels: larger windows are fitted at this size; fine texture comes from the nearest frame
    seed: int = 1
    colour_rate: float = 6e-3
    colour_basis_rate: float = 2e-3
    offset_rate: float = 0.02  # pixels of the fitted size
    offset_basis_rate: float = 0.01
    shape_rate: float = 8e-3  # log of sizes, quaternions
    opacity_rate: float = 0.03
    basis_decay: float = 0.5  # per step and rate: bases are for what all frames agree on
    code_noise: float = 0.05  # of the expression code, so that unseen codes are not strangers
    lip_weight: float = 3.0  # of a pixel of the mouth against one of the cheek
    ssim_weight: float = 0.5
    gradient_weight: float = 0.5
    size_weight: float = 1e-3  # pull of sizes towards those of the start: speckle is made of needles
    refill_at: tuple[int, ...] = (120, 220)  # steps at which dead Gaussians move to where the error is


@dataclass(frozen=True)
class FaceConfig:
    """The whole face, learned only when a pose or a gaze is asked for."""

    gaussians: int = 20_000
    eye_share: float = 0.06  # of all Gaussians are eyeballs
    inner_share: float = 0.06  # and behind the lips
    density: float = 1.5  # Gaussians along a line at lips and eyes, against the cheeks
    frames: int = 200  # that are learned from, at most
    eye_weight: float = 2.5  # of a pixel of an eye against one of the cheek
    share: float = 0.4  # of the coarse band around lips and eyes is Gaussians; the rest is the frame's own, moved
    fit: FitConfig = field(default_factory=lambda: FitConfig(side=288))


@dataclass(frozen=True)
class GaussianConfig:
    """Frozen settings; part of the avatar's digest."""

    gaussians: int = 12_000
    lip_density: float = 1.33  # Gaussians along a line at the lips, against the cheeks
    inner_share: float = 0.12  # of all Gaussians lie behind the lips
    mouth_codes: int = 5  # directions of expression that colour and position may follow
    head_codes: int = 2  # yaw and pitch: light moves over a turning face (measured: +0.7 dB)
    texture_gain: float = 1.0  # share of the nearest filmed frame's fine texture
    retrieved_share: float = 0.6  # of the coarse band is retrieved mouths: the two err in other places (README: figures)
    batch: int = 8  # frames a raster call on a GPU; a CPU takes one after the other
    fit: FitConfig = field(default_factory=FitConfig)
    face: FaceConfig = field(default_factory=FaceConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
