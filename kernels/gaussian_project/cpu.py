"""Numba path of the projection: one Gaussian at a time, in double precision, stored as float32."""

from __future__ import annotations

import math

from kernels.jit import Array, compiled
from kernels.splats import ALPHA_MIN, MAX_EXTENT


@compiled
def _rotation(w: float, x: float, y: float, z: float) -> tuple[float, ...]:
    return (
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )


@compiled
def _turned(view: Array, r: tuple[float, ...]) -> tuple[float, ...]:
    """The camera's rotation times `r`, both 3x3."""
    return (
        view[0] * r[0] + view[1] * r[3] + view[2] * r[6],
        view[0] * r[1] + view[1] * r[4] + view[2] * r[7],
        view[0] * r[2] + view[1] * r[5] + view[2] * r[8],
        view[4] * r[0] + view[5] * r[3] + view[6] * r[6],
        view[4] * r[1] + view[5] * r[4] + view[6] * r[7],
        view[4] * r[2] + view[5] * r[5] + view[6] * r[8],
        view[8] * r[0] + view[9] * r[3] + view[10] * r[6],
        view[8] * r[1] + view[9] * r[4] + view[10] * r[7],
        view[8] * r[2] + view[9] * r[5] + view[10] * r[8],
    )


@compiled
def _slope(ratio: float, focal: float, centre: float, size: int) -> tuple[float, float]:
    """Tangent at which the projection is linearised, and 1 if it follows the point, 0 if it was held back."""
    low = -(centre + 0.5) / focal - 0.15 * size / focal
    high = (size - 0.5 - centre) / focal + 0.15 * size / focal
    if ratio < low:
        return low, 0.0
    if ratio > high:
        return high, 0.0
    return ratio, 1.0


@compiled
def project_forward(
    means: Array,
    quats: Array,
    scales: Array,
    opacities: Array,
    view: Array,
    intrinsics: Array,
    height: int,
    width: int,
    near: float,
    far: float,
    blur: float,
    out_means: Array,
    out_conics: Array,
    out_depths: Array,
    out_extents: Array,
    first: int,
    last: int,
) -> None:
    """Gaussians `first` to `last` of one frame."""
    v, k = view, intrinsics
    for n in range(first, last):
        out_means[n, 0] = out_means[n, 1] = out_depths[n] = out_extents[n, 0] = out_extents[n, 1] = 0
        out_conics[n, 0] = out_conics[n, 1] = out_conics[n, 2] = 0
        m, q = means[n], quats[n]
        z = v[8] * m[0] + v[9] * m[1] + v[10] * m[2] + v[11]
        opacity = opacities[n]
        norm = math.sqrt(float(q[0]) ** 2 + float(q[1]) ** 2 + float(q[2]) ** 2 + float(q[3]) ** 2)
        if not (near < z < far and opacity >= ALPHA_MIN and norm > 0):
            continue
        x = v[0] * m[0] + v[1] * m[1] + v[2] * m[2] + v[3]
        y = v[4] * m[0] + v[5] * m[1] + v[6] * m[2] + v[7]
        px, py = k[0] * x / z + k[2], k[1] * y / z + k[3]
        slope_x, _ = _slope(x / z, k[0], k[2], width)
        slope_y, _ = _slope(y / z, k[1], k[3], height)
        t = _turned(v, _rotation(q[0] / norm, q[1] / norm, q[2] / norm, q[3] / norm))
        s = scales[n]
        jx, jy = k[0] / z, k[1] / z
        u0, u1, u2 = (
            jx * (t[0] - slope_x * t[6]) * s[0],
            jx * (t[1] - slope_x * t[7]) * s[1],
            jx * (t[2] - slope_x * t[8]) * s[2],
        )
        w0, w1, w2 = (
            jy * (t[3] - slope_y * t[6]) * s[0],
            jy * (t[4] - slope_y * t[7]) * s[1],
            jy * (t[5] - slope_y * t[8]) * s[2],
        )
        xx = u0 * u0 + u1 * u1 + u2 * u2 + blur
        xy = u0 * w0 + u1 * w1 + u2 * w2
        yy = w0 * w0 + w1 * w1 + w2 * w2 + blur
        determinant = xx * yy - xy * xy
        reach = 2 * math.log(max(255.0 * opacity, 1.0))
        ex, ey = math.sqrt(reach * xx), math.sqrt(reach * yy)
        if px + ex >= 0 and px - ex <= width - 1 and py + ey >= 0 and py - ey <= height - 1 and max(ex, ey) <= MAX_EXTENT:
            out_means[n, 0], out_means[n, 1] = px, py
            out_conics[n, 0], out_conics[n, 1], out_conics[n, 2] = yy / determinant, -xy / determinant, xx / determinant
            out_depths[n] = z
            out_extents[n, 0], out_extents[n, 1] = ex, ey


@compiled
def _quat_gradient(w: float, x: float, y: float, z: float, g: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Gradient by a unit quaternion from the gradient `g` by its rotation matrix."""
    return (
        2 * (x * (g[7] - g[5]) + y * (g[2] - g[6]) + z * (g[3] - g[1])),
        2 * (w * (g[7] - g[5]) - 2 * x * (g[4] + g[8]) + y * (g[1] + g[3]) + z * (g[2] + g[6])),
        2 * (w * (g[2] - g[6]) + x * (g[1] + g[3]) - 2 * y * (g[0] + g[8]) + z * (g[5] + g[7])),
        2 * (w * (g[3] - g[1]) + x * (g[2] + g[6]) + y * (g[5] + g[7]) - 2 * z * (g[0] + g[4])),
    )


@compiled
def project_backward(
    means: Array,
    quats: Array,
    scales: Array,
    view: Array,
    intrinsics: Array,
    height: int,
    width: int,
    conics: Array,
    extents: Array,
    grad_means: Array,
    grad_conics: Array,
    grad_depths: Array,
    out: Array,
    first: int,
    last: int,
) -> None:
    """Gaussians of one frame: gradients by the mean (3), the quaternion (4) and the scales (3) into `out` [N, 10]."""
    v, k = view, intrinsics
    for n in range(first, last):
        for i in range(10):
            out[n, i] = 0
        if not extents[n, 0] > 0:
            continue
        m, q, s = means[n], quats[n], scales[n]
        norm = math.sqrt(float(q[0]) ** 2 + float(q[1]) ** 2 + float(q[2]) ** 2 + float(q[3]) ** 2)
        qw, qx, qy, qz = q[0] / norm, q[1] / norm, q[2] / norm, q[3] / norm
        x = v[0] * m[0] + v[1] * m[1] + v[2] * m[2] + v[3]
        y = v[4] * m[0] + v[5] * m[1] + v[6] * m[2] + v[7]
        z = v[8] * m[0] + v[9] * m[1] + v[10] * m[2] + v[11]
        slope_x, free_x = _slope(x / z, k[0], k[2], width)
        slope_y, free_y = _slope(y / z, k[1], k[3], height)
        r = _rotation(qw, qx, qy, qz)
        t = _turned(v, r)
        jx, jy = k[0] / z, k[1] / z
        p0, p1, p2 = t[0] - slope_x * t[6], t[1] - slope_x * t[7], t[2] - slope_x * t[8]
        r0, r1, r2 = t[3] - slope_y * t[6], t[4] - slope_y * t[7], t[5] - slope_y * t[8]
        # covariance = U U^T with rows U = j * p * s; its gradient is -K G K with the conic K
        a, c2, d = conics[n, 0], conics[n, 1], conics[n, 2]
        ga, gb, gc = grad_conics[n, 0], 0.5 * grad_conics[n, 1], grad_conics[n, 2]
        h0, h1, h2, h3 = a * ga + c2 * gb, a * gb + c2 * gc, c2 * ga + d * gb, c2 * gb + d * gc
        vxx, vxy, vyy = -(h0 * a + h1 * c2), -(h0 * c2 + h1 * d), -(h2 * c2 + h3 * d)
        g0, g1, g2 = (  # by the first row of j * p, twice V U, then times the scale once more below
            2 * (vxx * jx * p0 + vxy * jy * r0) * s[0],
            2 * (vxx * jx * p1 + vxy * jy * r1) * s[1],
            2 * (vxx * jx * p2 + vxy * jy * r2) * s[2],
        )
        e0, e1, e2 = (
            2 * (vxy * jx * p0 + vyy * jy * r0) * s[0],
            2 * (vxy * jx * p1 + vyy * jy * r1) * s[1],
            2 * (vxy * jx * p2 + vyy * jy * r2) * s[2],
        )
        out[n, 7] = g0 * jx * p0 + e0 * jy * r0
        out[n, 8] = g1 * jx * p1 + e1 * jy * r1
        out[n, 9] = g2 * jx * p2 + e2 * jy * r2
        g0, g1, g2, e0, e1, e2 = g0 * s[0], g1 * s[1], g2 * s[2], e0 * s[0], e1 * s[1], e2 * s[2]
        # by the Jacobian: j, and the slope that enters as -j * slope * (third row of t)
        dot_p, dot_r = g0 * p0 + g1 * p1 + g2 * p2, e0 * r0 + e1 * r1 + e2 * r2
        dslope_x = -jx * (g0 * t[6] + g1 * t[7] + g2 * t[8]) * free_x
        dslope_y = -jy * (e0 * t[6] + e1 * t[7] + e2 * t[8]) * free_y
        dx = jx * grad_means[n, 0] + dslope_x / z
        dy = jy * grad_means[n, 1] + dslope_y / z
        dz = grad_depths[n] - (dx * x + dy * y) / z - (jx * dot_p + jy * dot_r) / z
        out[n, 0] = v[0] * dx + v[4] * dy + v[8] * dz
        out[n, 1] = v[1] * dx + v[5] * dy + v[9] * dz
        out[n, 2] = v[2] * dx + v[6] * dy + v[10] * dz
        # by t = view * rotation, then by the rotation, then by the quaternion before it was normalised
        x0, x1, x2 = jx * g0, jx * g1, jx * g2
        y0, y1, y2 = jy * e0, jy * e1, jy * e2
        z0, z1, z2 = -slope_x * x0 - slope_y * y0, -slope_x * x1 - slope_y * y1, -slope_x * x2 - slope_y * y2
        turned = (
            *(v[0] * x0 + v[4] * y0 + v[8] * z0, v[0] * x1 + v[4] * y1 + v[8] * z1, v[0] * x2 + v[4] * y2 + v[8] * z2),
            *(v[1] * x0 + v[5] * y0 + v[9] * z0, v[1] * x1 + v[5] * y1 + v[9] * z1, v[1] * x2 + v[5] * y2 + v[9] * z2),
            *(v[2] * x0 + v[6] * y0 + v[10] * z0, v[2] * x1 + v[6] * y1 + v[10] * z1, v[2] * x2 + v[6] * y2 + v[10] * z2),
        )
        dq = _quat_gradient(qw, qx, qy, qz, turned)
        along = dq[0] * qw + dq[1] * qx + dq[2] * qy + dq[3] * qz
        out[n, 3] = (dq[0] - along * qw) / norm
        out[n, 4] = (dq[1] - along * qx) / norm
        out[n, 5] = (dq[2] - along * qy) / norm
        out[n, 6] = (dq[3] - along * qz) / norm
