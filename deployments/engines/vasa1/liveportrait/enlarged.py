"""A 3x3 convolution of a map whose pixels were repeated 1, 2 or 4 times each way, computed on the small map.

Repeated four times, a row of a cell reads at most one neighbour: its first row sees the cell above once and itself twice,
the two in the middle see nothing but itself, the last one sees itself twice and the cell below once. So 9 of the 16
pixels of a cell differ, and 25 products do where 144 were. Zeros around the map are zeros around the repeated one.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from kernels.upsample_conv import fold, upsample_conv


class EnlargedConv(nn.Module):
    """The convolution with weight [O, I, 3, 3] of a map repeated `times` times."""

    corners: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    centre: torch.Tensor
    bias: torch.Tensor

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, times: int) -> None:
        super().__init__()
        assert times in (1, 2, 4)
        self.times = times
        corners = weight if times == 1 else fold(weight)
        for name, part in (("corners", corners), ("bias", bias)):
            self.register_buffer(name, part.detach().clone(), persistent=False)
        if times == 4:
            across, down = corners.sum(3, keepdim=True), corners.sum(2, keepdim=True)  # taps together: what the middles see
            rows = across.unflatten(0, (4, -1))[::2].flatten(0, 1)  # first and last row
            columns = down.unflatten(0, (4, -1))[:2].flatten(0, 1)  # first and last column
            for name, part in (("rows", rows), ("columns", columns), ("centre", weight.sum((2, 3), keepdim=True))):
                self.register_buffer(name, part.detach().clone(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, I, H, W] -> [N, O, times H, times W]."""
        if self.times == 1:
            return functional.conv2d(x, self.corners, self.bias, padding=1)
        if self.times == 2:
            return upsample_conv(x, self.corners, self.bias)
        return self._four(x)

    def _four(self, x: torch.Tensor) -> torch.Tensor:
        count, height, width = len(self.bias), *x.shape[2:]
        out = x.new_empty((len(x), height, 4, width, 4, count)).permute(0, 5, 1, 2, 3, 4)  # channels last in memory
        twice = self.bias.repeat(2)
        every = functional.conv2d(x, self.corners, self.bias.repeat(4), padding=1)
        above = functional.conv2d(x, self.rows, twice, padding=(1, 0))
        beside = functional.conv2d(x, self.columns, twice, padding=(0, 1))
        inside = functional.conv2d(x, self.centre, self.bias)
        for side in range(2):  # first and last row or column of the cells
            edge = slice(count * side, count * (side + 1))
            out[:, :, :, 3 * side, :, 1:3] = above[:, edge, side : side + height, :, None]
            out[:, :, :, 1:3, :, 3 * side] = beside[:, edge, :, side : side + width][:, :, :, None]
            for other in range(2):
                corner = slice(count * (2 * side + other), count * (2 * side + other + 1))
                out[:, :, :, 3 * side, :, 3 * other] = every[:, corner, side : side + height, other : other + width]
        out[:, :, :, 1:3, :, 1:3] = inside[:, :, :, None, :, None]
        return out.flatten(4, 5).flatten(2, 3)
