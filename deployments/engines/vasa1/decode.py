"""The learned decoder at work: one frame at a time, so that no frame depends on what it is rendered with."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from deployments.engines.vasa1.config import DecoderConfig
from deployments.engines.vasa1.network import Decoder, mixed
from deployments.engines.vasa1.sample import Sample
from deployments.errors import WeightsError
from deployments.retrieval.window import Floats


class FaceDecoder:
    """Weights in memory, on the GPU where there is one."""

    def __init__(self, weights: Path, config: DecoderConfig) -> None:
        torch.set_num_threads(1)  # chunks are the parallelism, and sums must not depend on the number of threads
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = Decoder(config)
        try:
            self._model.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
        except (SafetensorError, RuntimeError, OSError) as error:
            raise WeightsError(f"expected a decoder at {weights}, got: {error}; fit the avatar again") from error
        self._model.eval().to(self._device)

    @torch.inference_mode()
    def __call__(self, sample: Sample, condition: Floats) -> tuple[Floats, Floats]:
        """Shares [6, H, W] of the pictures and correction [3, H, W] (1 = white)."""
        planes = self._tensor(sample.planes()).to(memory_format=torch.channels_last)
        logits, residual = self._model(planes, self._tensor(condition))
        _, shares = mixed(self._tensor(sample.pictures), self._tensor(sample.weights), logits)
        return shares[0].contiguous().cpu().numpy(), residual[0].contiguous().cpu().numpy()

    def _tensor(self, array: Floats) -> torch.Tensor:
        return torch.from_numpy(array)[None].to(self._device)
