"""The decoder's window: all of a subject that is ever shown, seen at the same size whatever the head does."""

from __future__ import annotations

from deployments.engines.vasa1.config import DecoderConfig
from deployments.retrieval.bank import Bank
from deployments.retrieval.window import Window, window_around

MARGIN = 0.06  # eye distances around what is shown


def place_window(bank: Bank, config: DecoderConfig) -> Window:
    """The window of a subject: all that is ever shown, and a margin, at a size that a core can learn on."""
    shown = bank.shape.shape(bank.coefficients)[:, bank.mesh.alpha > 0, :2]
    return window_around(bank, shown, MARGIN, config.density, config.window_pixels)
