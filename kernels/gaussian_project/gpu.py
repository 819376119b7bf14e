"""Triton path of the projection: a block of Gaussians of one frame, forward and backward, in float32."""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from kernels.splats import ALPHA_MIN, MAX_EXTENT

LEAST_OPACITY: tl.constexpr = tl.constexpr(ALPHA_MIN)
MOST_EXTENT: tl.constexpr = tl.constexpr(MAX_EXTENT)
LOG_RANGE: tl.constexpr = tl.constexpr(math.log(255.0))
BLOCK = 128


@triton.jit
def _load3(start: tl.tensor, at: tl.tensor, mask: tl.tensor) -> tuple[tl.tensor, ...]:
    return (
        tl.load(start + at * 3, mask, other=0.0),
        tl.load(start + at * 3 + 1, mask, other=0.0),
        tl.load(start + at * 3 + 2, mask, other=0.0),
    )


@triton.jit
def _store3(start: tl.tensor, a: tl.tensor, b: tl.tensor, c: tl.tensor, mask: tl.tensor) -> None:
    tl.store(start, a, mask)
    tl.store(start + 1, b, mask)
    tl.store(start + 2, c, mask)


@triton.jit
def _load_quat(start: tl.tensor, at: tl.tensor, mask: tl.tensor) -> tuple[tl.tensor, ...]:
    """Unit quaternion and the length it had; length 1 where it had none."""
    w = tl.load(start + at * 4, mask, other=0.0)
    x = tl.load(start + at * 4 + 1, mask, other=0.0)
    y = tl.load(start + at * 4 + 2, mask, other=0.0)
    z = tl.load(start + at * 4 + 3, mask, other=0.0)
    norm = tl.sqrt(w * w + x * x + y * y + z * z)
    safe = tl.where(norm > 0.0, norm, 1.0)
    return w / safe, x / safe, y / safe, z / safe, norm


@triton.jit
def _column(v0: tl.tensor, v1: tl.tensor, v2: tl.tensor, a: tl.tensor, b: tl.tensor, c: tl.tensor) -> tl.tensor:
    return v0 * a + v1 * b + v2 * c


@triton.jit
def _slope(ratio: tl.tensor, focal: tl.tensor, centre: tl.tensor, size: tl.tensor) -> tuple[tl.tensor, ...]:
    """Tangent at which the projection is linearised, and whether it follows the point or was held back."""
    low = -(centre + 0.5) / focal - 0.15 * size / focal
    high = (size - 0.5 - centre) / focal + 0.15 * size / focal
    held = tl.minimum(tl.maximum(ratio, low), high)
    return held, held == ratio


@triton.jit
def _spread(
    view: tl.tensor,
    w: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    z: tl.tensor,
    slope_x: tl.tensor,
    slope_y: tl.tensor,
) -> tuple[tl.tensor, ...]:
    """View rotation times Gaussian rotation (third row) and its first two rows minus slope times the third."""
    r0, r1, r2 = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    r3, r4, r5 = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    r6, r7, r8 = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    v0, v1, v2 = tl.load(view), tl.load(view + 1), tl.load(view + 2)
    v4, v5, v6 = tl.load(view + 4), tl.load(view + 5), tl.load(view + 6)
    v8, v9, v10 = tl.load(view + 8), tl.load(view + 9), tl.load(view + 10)
    t6, t7, t8 = _column(v8, v9, v10, r0, r3, r6), _column(v8, v9, v10, r1, r4, r7), _column(v8, v9, v10, r2, r5, r8)
    p0 = _column(v0, v1, v2, r0, r3, r6) - slope_x * t6
    p1 = _column(v0, v1, v2, r1, r4, r7) - slope_x * t7
    p2 = _column(v0, v1, v2, r2, r5, r8) - slope_x * t8
    s0 = _column(v4, v5, v6, r0, r3, r6) - slope_y * t6
    s1 = _column(v4, v5, v6, r1, r4, r7) - slope_y * t7
    s2 = _column(v4, v5, v6, r2, r5, r8) - slope_y * t8
    return p0, p1, p2, s0, s1, s2, t6, t7, t8


@triton.jit
def _point(view: tl.tensor, mx: tl.tensor, my: tl.tensor, mz: tl.tensor) -> tuple[tl.tensor, ...]:
    x = _column(tl.load(view), tl.load(view + 1), tl.load(view + 2), mx, my, mz) + tl.load(view + 3)
    y = _column(tl.load(view + 4), tl.load(view + 5), tl.load(view + 6), mx, my, mz) + tl.load(view + 7)
    z = _column(tl.load(view + 8), tl.load(view + 9), tl.load(view + 10), mx, my, mz) + tl.load(view + 11)
    return x, y, z


@triton.jit
def project_forward(
    means: tl.tensor,
    quats: tl.tensor,
    scales: tl.tensor,
    opacities: tl.tensor,
    view: tl.tensor,
    intrinsics: tl.tensor,
    out_means: tl.tensor,
    out_conics: tl.tensor,
    out_depths: tl.tensor,
    out_extents: tl.tensor,
    splats: tl.tensor,
    mean_step: tl.tensor,
    quat_step: tl.tensor,
    scale_step: tl.tensor,
    opacity_step: tl.tensor,
    view_step: tl.tensor,
    intrinsics_step: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    near: tl.tensor,
    far: tl.tensor,
    blur: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Steps count Gaussians (cameras) from one frame to the next; 0 where all frames share a tensor."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    frame = tl.program_id(1).to(tl.int64)
    mask = n < splats
    view += frame * view_step * 12
    intrinsics += frame * intrinsics_step * 4
    fx, fy, cx, cy = tl.load(intrinsics), tl.load(intrinsics + 1), tl.load(intrinsics + 2), tl.load(intrinsics + 3)
    mx, my, mz = _load3(means, frame * mean_step + n, mask)
    qw, qx, qy, qz, norm = _load_quat(quats, frame * quat_step + n, mask)
    sx, sy, sz = _load3(scales, frame * scale_step + n, mask)
    opacity = tl.load(opacities + frame * opacity_step + n, mask, other=0.0)
    x, y, depth = _point(view, mx, my, mz)
    seen = (depth > near) & (depth < far) & (opacity >= LEAST_OPACITY) & (norm > 0.0)
    z = tl.where(seen, depth, 1.0)
    slope_x, _ = _slope(x / z, fx, cx, width)
    slope_y, _ = _slope(y / z, fy, cy, height)
    p0, p1, p2, s0, s1, s2, _, _, _ = _spread(view, qw, qx, qy, qz, slope_x, slope_y)
    jx, jy = fx / z, fy / z
    u0, u1, u2 = jx * p0 * sx, jx * p1 * sy, jx * p2 * sz
    w0, w1, w2 = jy * s0 * sx, jy * s1 * sy, jy * s2 * sz
    flat_x, flat_y = u0 * u0 + u1 * u1 + u2 * u2, w0 * w0 + w1 * w1 + w2 * w2
    xx, xy, yy = flat_x + blur, u0 * w0 + u1 * w1 + u2 * w2, flat_y + blur
    # by its minors: xx * yy - xy * xy would lose all digits of a thin splat
    m0, m1, m2 = u0 * w1 - u1 * w0, u0 * w2 - u2 * w0, u1 * w2 - u2 * w1
    determinant = m0 * m0 + m1 * m1 + m2 * m2 + blur * (flat_x + flat_y) + blur * blur
    reach = 2.0 * tl.maximum(tl.log(tl.maximum(opacity, LEAST_OPACITY)) + LOG_RANGE, 0.0)
    ex, ey = tl.sqrt(reach * xx), tl.sqrt(reach * yy)
    px, py = fx * x / z + cx, fy * y / z + cy
    seen = seen & (px + ex >= 0.0) & (px - ex <= width - 1.0) & (py + ey >= 0.0) & (py - ey <= height - 1.0)
    seen = seen & (ex <= MOST_EXTENT) & (ey <= MOST_EXTENT)
    at = frame * splats + n
    tl.store(out_means + at * 2, tl.where(seen, px, 0.0), mask)
    tl.store(out_means + at * 2 + 1, tl.where(seen, py, 0.0), mask)
    tl.store(out_conics + at * 3, tl.where(seen, yy / determinant, 0.0), mask)
    tl.store(out_conics + at * 3 + 1, tl.where(seen, -xy / determinant, 0.0), mask)
    tl.store(out_conics + at * 3 + 2, tl.where(seen, xx / determinant, 0.0), mask)
    tl.store(out_depths + at, tl.where(seen, depth, 0.0), mask)
    tl.store(out_extents + at * 2, tl.where(seen, ex, 0.0), mask)
    tl.store(out_extents + at * 2 + 1, tl.where(seen, ey, 0.0), mask)


@triton.jit
def _quat_gradient(
    w: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    z: tl.tensor,
    r0: tl.tensor,
    r1: tl.tensor,
    r2: tl.tensor,
    r3: tl.tensor,
    r4: tl.tensor,
    r5: tl.tensor,
    r6: tl.tensor,
    r7: tl.tensor,
    r8: tl.tensor,
) -> tuple[tl.tensor, ...]:
    """Gradient by a unit quaternion, across it, from the gradient by its rotation matrix."""
    dw = 2 * (x * (r7 - r5) + y * (r2 - r6) + z * (r3 - r1))
    dx = 2 * (w * (r7 - r5) - 2 * x * (r4 + r8) + y * (r1 + r3) + z * (r2 + r6))
    dy = 2 * (w * (r2 - r6) + x * (r1 + r3) - 2 * y * (r0 + r8) + z * (r5 + r7))
    dz = 2 * (w * (r3 - r1) + x * (r2 + r6) + y * (r5 + r7) - 2 * z * (r0 + r4))
    along = dw * w + dx * x + dy * y + dz * z
    return dw - along * w, dx - along * x, dy - along * y, dz - along * z


@triton.jit
def project_backward(
    means: tl.tensor,
    quats: tl.tensor,
    scales: tl.tensor,
    view: tl.tensor,
    intrinsics: tl.tensor,
    conics: tl.tensor,
    extents: tl.tensor,
    grad_means: tl.tensor,
    grad_conics: tl.tensor,
    grad_depths: tl.tensor,
    out: tl.tensor,
    splats: tl.tensor,
    mean_step: tl.tensor,
    quat_step: tl.tensor,
    scale_step: tl.tensor,
    view_step: tl.tensor,
    intrinsics_step: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Gradients [B, N, 10] by mean, quaternion and scales; the names are those of `cpu.project_backward`."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    frame = tl.program_id(1).to(tl.int64)
    mask = n < splats
    at = frame * splats + n
    seen = mask & (tl.load(extents + at * 2, mask, other=0.0) > 0.0)
    view += frame * view_step * 12
    intrinsics += frame * intrinsics_step * 4
    fx, fy, cx, cy = tl.load(intrinsics), tl.load(intrinsics + 1), tl.load(intrinsics + 2), tl.load(intrinsics + 3)
    mx, my, mz = _load3(means, frame * mean_step + n, seen)
    qw, qx, qy, qz, norm = _load_quat(quats, frame * quat_step + n, seen)
    sx, sy, sz = _load3(scales, frame * scale_step + n, seen)
    x, y, z = _point(view, mx, my, mz)
    z, norm = tl.where(seen, z, 1.0), tl.where(seen, norm, 1.0)
    slope_x, free_x = _slope(x / z, fx, cx, width)
    slope_y, free_y = _slope(y / z, fy, cy, height)
    p0, p1, p2, s0, s1, s2, t6, t7, t8 = _spread(view, qw, qx, qy, qz, slope_x, slope_y)
    jx, jy = fx / z, fy / z
    a, b, c = _load3(conics, at, seen)
    ga, gb, gc = _load3(grad_conics, at, seen)
    gb = gb * 0.5
    h0, h1, h2, h3 = a * ga + b * gb, a * gb + b * gc, b * ga + c * gb, b * gb + c * gc
    vxx, vxy, vyy = -2 * (h0 * a + h1 * b), -2 * (h0 * b + h1 * c), -2 * (h2 * b + h3 * c)
    g0, e0 = (vxx * jx * p0 + vxy * jy * s0) * sx, (vxy * jx * p0 + vyy * jy * s0) * sx
    g1, e1 = (vxx * jx * p1 + vxy * jy * s1) * sy, (vxy * jx * p1 + vyy * jy * s1) * sy
    g2, e2 = (vxx * jx * p2 + vxy * jy * s2) * sz, (vxy * jx * p2 + vyy * jy * s2) * sz
    out += at * 10
    _store3(out + 7, g0 * jx * p0 + e0 * jy * s0, g1 * jx * p1 + e1 * jy * s1, g2 * jx * p2 + e2 * jy * s2, mask)
    g0, g1, g2, e0, e1, e2 = g0 * sx, g1 * sy, g2 * sz, e0 * sx, e1 * sy, e2 * sz
    slant_x = tl.where(free_x, -jx * (g0 * t6 + g1 * t7 + g2 * t8), 0.0)
    slant_y = tl.where(free_y, -jy * (e0 * t6 + e1 * t7 + e2 * t8), 0.0)
    dx = jx * tl.load(grad_means + at * 2, seen, other=0.0) + slant_x / z
    dy = jy * tl.load(grad_means + at * 2 + 1, seen, other=0.0) + slant_y / z
    along = jx * (g0 * p0 + g1 * p1 + g2 * p2) + jy * (e0 * s0 + e1 * s1 + e2 * s2)
    dz = tl.load(grad_depths + at, seen, other=0.0) - (dx * x + dy * y) / z - along / z
    v0, v1, v2 = tl.load(view), tl.load(view + 1), tl.load(view + 2)
    v4, v5, v6 = tl.load(view + 4), tl.load(view + 5), tl.load(view + 6)
    v8, v9, v10 = tl.load(view + 8), tl.load(view + 9), tl.load(view + 10)
    dx, dy, dz = tl.where(seen, dx, 0.0), tl.where(seen, dy, 0.0), tl.where(seen, dz, 0.0)
    m0, m1, m2 = _column(v0, v4, v8, dx, dy, dz), _column(v1, v5, v9, dx, dy, dz), _column(v2, v6, v10, dx, dy, dz)
    _store3(out, m0, m1, m2, mask)
    x0, x1, x2, y0, y1, y2 = jx * g0, jx * g1, jx * g2, jy * e0, jy * e1, jy * e2
    z0, z1, z2 = -slope_x * x0 - slope_y * y0, -slope_x * x1 - slope_y * y1, -slope_x * x2 - slope_y * y2
    r0, r1, r2 = _column(v0, v4, v8, x0, y0, z0), _column(v0, v4, v8, x1, y1, z1), _column(v0, v4, v8, x2, y2, z2)
    r3, r4, r5 = _column(v1, v5, v9, x0, y0, z0), _column(v1, v5, v9, x1, y1, z1), _column(v1, v5, v9, x2, y2, z2)
    r6, r7, r8 = _column(v2, v6, v10, x0, y0, z0), _column(v2, v6, v10, x1, y1, z1), _column(v2, v6, v10, x2, y2, z2)
    dw, dqx, dqy, dqz = _quat_gradient(qw, qx, qy, qz, r0, r1, r2, r3, r4, r5, r6, r7, r8)
    tl.store(out + 3, tl.where(seen, dw / norm, 0.0), mask)
    dqx, dqy, dqz = tl.where(seen, dqx / norm, 0.0), tl.where(seen, dqy / norm, 0.0), tl.where(seen, dqz / norm, 0.0)
    _store3(out + 4, dqx, dqy, dqz, mask)


def _steps(*tensors: Tensor) -> list[int]:
    """Gaussians (cameras) from one frame to the next."""
    return [0 if t.shape[0] == 1 else (t.shape[1] if t.ndim == 3 else 1) for t in tensors]


def launch_project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    view: Tensor,
    intrinsics: Tensor,
    frames: int,
    height: int,
    width: int,
    near: float,
    far: float,
    blur: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `op.gaussian_project`."""
    splats = means.shape[1]
    out = [means.new_empty(frames, splats, size) for size in (2, 3, 1, 2)]
    if frames * splats:
        steps = _steps(means, quats, scales, opacities[..., None], view, intrinsics)
        project_forward[(triton.cdiv(splats, BLOCK), frames)](
            *(means, quats, scales, opacities, view, intrinsics, *out, splats, *steps),
            *(height, width, near, far, blur),
            BLOCK=BLOCK,
        )
    return out[0], out[1], out[2].view(frames, splats), out[3]


def launch_project_backward(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    view: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
    conics: Tensor,
    extents: Tensor,
    grad_means: Tensor,
    grad_conics: Tensor,
    grad_depths: Tensor,
) -> Tensor:
    """See `op.gaussian_project_backward`."""
    frames, splats = extents.shape[:2]
    out = means.new_empty(frames, splats, 10)
    if out.numel():
        project_backward[(triton.cdiv(splats, BLOCK), frames)](
            *(means, quats, scales, view, intrinsics, conics, extents, grad_means, grad_conics, grad_depths, out),
            *(splats, *_steps(means, quats, scales, view, intrinsics), height, width),
            BLOCK=BLOCK,
        )
    return out
