"""How the numba paths are compiled: kept on disk, without the interpreter lock, dividing by zero like C."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from numba import njit, types
from numba.extending import intrinsic
from numba.np.unsafe.ndarray import to_fixed_tuple
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Loop: TypeAlias = Callable[..., Any]  # called with lists of arrays

fixed_tuple: Callable[[Array, int], tuple[Any, ...]] = to_fixed_tuple  # type: ignore[assignment]  # numba fills in the rest


def compiled(function: Loop) -> Loop:
    """Compile with strict arithmetic."""
    return njit(cache=True, nogil=True, error_model="numpy")(function)


def compiled_fast(function: Loop) -> Loop:
    """Compile with sums in any order and fused multiply-adds.

    No shortcut that assumes away NaN: a broken splat must not look fine.
    """
    flags = {"contract", "reassoc", "nsz", "arcp"}
    return njit(cache=True, nogil=True, error_model="numpy", fastmath=flags)(function)


def inlined(function: Loop) -> Loop:
    """Paste into the callers, which decide about the arithmetic."""
    return njit(inline="always")(function)


@intrinsic
def _wide_vectors(typing_context: Any) -> Any:
    """Let the function that calls this use 512-bit vectors where the machine has them; LLVM would stop at 256.

    llvmlite knows no attributes with values, so that the text is put into its set directly.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), generate


wide_vectors: Callable[[], None] = _wide_vectors  # type: ignore[assignment]  # numba hands over the context
