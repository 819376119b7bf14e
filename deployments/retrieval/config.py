"""Settings of the bank and of the look-up; every figure says why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetrievalConfig:
    """Frozen settings; part of the digest of every avatar that holds a bank."""

    bank_bytes: int = 600 << 20  # pictures kept on disk per avatar
    neighbours: int = 5  # frames blended; more makes teeth double and soft
    candidates: int = 32  # per frame, for the path through the bank
    pose_weight: float = 0.25  # eye distances per radian of head turn in the retrieval distance
    light_weight: float = 0.5  # eye distances by which a mouth in half or twice the light (e-fold) seems farther away
    appearance_weight: float = 0.35  # pull towards smooth change of the mouth's look, against nearest shape
    sound_weight: float = 0.0  # eye distances for sounds of nothing in common, over 1.4; 0.02 wins no more than chance would
    spread: float = 0.5  # share of the nearest distance that halves a neighbour's weight
    code_size: int = 12  # mouth appearance code
    code_side: int = 32  # pixels of the stabilised mouth thumbnail behind the code
    margin: int = 12  # pixels around the mesh in stored pictures
