"""Errors and checks of the kernels' doors: what was expected, what came, what to do."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class KernelError(Exception):
    """Base of what a kernel's door can raise."""


class ShapeError(KernelError, ValueError):
    """A tensor or a number has the wrong size."""


class DtypeError(KernelError, TypeError):
    """A tensor has the wrong type of numbers."""


class DeviceError(KernelError, ValueError):
    """Tensors lie on different devices, or on one that has no kernel."""


class GradientError(KernelError, ValueError):
    """A gradient was asked for that the kernel does not compute."""


class CapacityError(KernelError, RuntimeError):
    """A buffer of fixed capacity was too small; the message names the capacity that is needed."""


def check_shape(name: str, tensor: Tensor, shape: tuple[str | int, ...], sizes: Mapping[str, int]) -> None:
    """`shape` holds numbers and names of `sizes`; a name with a question mark may also be 1 (shared by all frames)."""
    wanted = [sizes[part.rstrip("?")] if isinstance(part, str) else part for part in shape]
    shared = [isinstance(part, str) and part.endswith("?") for part in shape]
    fits = tensor.ndim == len(wanted) and all(
        have == want or (free and have == 1) for have, want, free in zip(tensor.shape, wanted, shared, strict=True)
    )
    if not fits:
        layout = ", ".join(f"{part}".rstrip("?") + (" or 1" if free else "") for part, free in zip(shape, shared, strict=True))
        meaning = ", ".join(f"{key}={value}" for key, value in sizes.items())
        raise ShapeError(f"{name}: expected shape [{layout}] with {meaning}, got {list(tensor.shape)}; reshape it")


def check_numbers(device: torch.device, **tensors: Tensor | None) -> None:
    """Every tensor is float32 and lies on `device`, which is the CPU or a CUDA device."""
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"expected tensors on cpu or cuda, got {device}; move them with .cpu() or .cuda()")
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.dtype != torch.float32:
            raise DtypeError(
                f"{name}: expected float32, got {tensor.dtype}; convert it with .float(). "
                "Only the functions of reference.py take float64"
            )
        if tensor.device != device:
            raise DeviceError(f"{name}: expected a tensor on {device} like the others, got {tensor.device}; move it there")


def check_no_gradient(reason: str, **tensors: Tensor) -> None:
    """Refuse inputs that ask for a gradient which would silently be missing."""
    for name, tensor in tensors.items():
        if tensor.requires_grad and torch.is_grad_enabled():
            raise GradientError(f"{name}: no gradient is computed for it ({reason}), got requires_grad=True; detach it")


def check_size(height: int, width: int) -> None:
    """An image has at least one pixel, and its coordinates are exact in float32."""
    if not (1 <= height <= 16384 and 1 <= width <= 16384):
        raise ShapeError(f"expected an image of 1 to 16384 pixels a side, got height {height}, width {width}")
