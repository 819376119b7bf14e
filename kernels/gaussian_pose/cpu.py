"""Numba path: triangles first, then one pass over the Gaussians instead of a dozen arrays of all of them."""

from __future__ import annotations

import math

import numpy as np

from kernels.jit import Array, compiled

F = np.float32
TINY = F(1e-9)
LEAST, MOST = F(0.2), F(2.0)  # of a triangle's size at rest


@compiled
def triangle_rows(vertices: Array, triangles: Array, rows: Array) -> None:
    """Of each triangle [M, 14] three axes, its size and its quaternion; sums of squares in float64."""
    for m in range(triangles.shape[0]):
        a, b, c = vertices[triangles[m, 0]], vertices[triangles[m, 1]], vertices[triangles[m, 2]]
        ex, ey, ez = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        fx, fy, fz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        nx, ny, nz = ey * fz - ez * fy, ez * fx - ex * fz, ex * fy - ey * fx
        twice = F(math.sqrt(float(nx) * nx + float(ny) * ny + float(nz) * nz))
        length = max(F(math.sqrt(float(ex) * ex + float(ey) * ey + float(ez) * ez)), TINY)
        ex, ey, ez = ex / length, ey / length, ez / length
        span = max(twice, TINY)
        nx, ny, nz = nx / span, ny / span, nz / span
        ax, ay, az = ny * ez - nz * ey, nz * ex - nx * ez, nx * ey - ny * ex
        rows[m, 0], rows[m, 1], rows[m, 2] = ex, ey, ez
        rows[m, 3], rows[m, 4], rows[m, 5] = ax, ay, az
        rows[m, 6], rows[m, 7], rows[m, 8] = nx, ny, nz
        rows[m, 9] = F(math.sqrt(twice))
        _quaternion(rows[m])


@compiled
def _quaternion(row: Array) -> None:
    """Unit quaternion of the axes in row[:9] (the rotation's columns), by the largest of the four (Shepperd 1978)."""
    xx, yx, zx, xy, yy, zy, xz, yz, zz = row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8]
    one = F(1)
    t0, t1, t2, t3 = xx + yy + zz, xx - yy - zz, yy - xx - zz, zz - xx - yy
    if t0 >= t1 and t0 >= t2 and t0 >= t3:
        w, x, y, z = one + t0, zy - yz, xz - zx, yx - xy
    elif t1 >= t2 and t1 >= t3:
        w, x, y, z = zy - yz, one + t1, xy + yx, xz + zx
    elif t2 >= t3:
        w, x, y, z = xz - zx, xy + yx, one + t2, yz + zy
    else:
        w, x, y, z = yx - xy, xz + zx, yz + zy, one + t3
    length = max(F(math.sqrt(float(w) * w + float(x) * x + float(y) * y + float(z) * z)), TINY)
    row[10], row[11], row[12], row[13] = w / length, x / length, y / length, z / length


@compiled
def pose_rows(
    vertices: Array,
    triangles: Array,
    rows: Array,
    rest: Array,
    unit: float,
    code: Array,
    owner: Array,
    weights: Array,
    behind: Array,
    offset: Array,
    offset_basis: Array,
    size: Array,
    turn: Array,
    colour: Array,
    colour_basis: Array,
    means: Array,
    quats: Array,
    scales: Array,
    colours: Array,
    first: int,
    last: int,
) -> None:
    """Gaussians `first` to `last` of one frame."""
    scale = F(unit)
    for n in range(first, last):
        m = owner[n]
        row = rows[m]
        ox, oy, oz = offset[n, 0], offset[n, 1], offset[n, 2]
        for k in range(offset_basis.shape[0]):
            ox += code[k] * offset_basis[k, n, 0]
            oy += code[k] * offset_basis[k, n, 1]
            oz += code[k] * offset_basis[k, n, 2]
        a, b, c = vertices[triangles[m, 0]], vertices[triangles[m, 1]], vertices[triangles[m, 2]]
        for q in range(3):
            place = a[q] * weights[n, 0] + b[q] * weights[n, 1] + c[q] * weights[n, 2]
            means[n, q] = scale * (row[q] * ox + row[3 + q] * oy + row[6 + q] * oz) + place
        means[n, 2] += scale * behind[n]
        grown = min(max(row[9] / (scale * rest[m]), LEAST), MOST) * scale
        for q in range(3):
            scales[n, q] = F(math.exp(size[n, q])) * grown
        aw, ax, ay, az = row[10], row[11], row[12], row[13]
        bw, bx, by, bz = turn[n, 0], turn[n, 1], turn[n, 2], turn[n, 3]
        quats[n, 0], quats[n, 1] = aw * bw - ax * bx - ay * by - az * bz, aw * bx + ax * bw + ay * bz - az * by
        quats[n, 2], quats[n, 3] = aw * by - ax * bz + ay * bw + az * bx, aw * bz + ax * by - ay * bx + az * bw
        red, green, blue = colour[n, 0], colour[n, 1], colour[n, 2]
        for k in range(colour_basis.shape[0]):
            red += code[k] * colour_basis[k, n, 0]
            green += code[k] * colour_basis[k, n, 1]
            blue += code[k] * colour_basis[k, n, 2]
        colours[n, 0], colours[n, 1], colours[n, 2] = red, green, blue


@compiled
def gate_rows(points: Array, ring: Array, unit: float, soft: float, room: float, out: Array) -> None:
    """How much [G] of points [G, 2] a ring [R, 2] leaves to be seen, in one frame."""
    corners, area, scale = ring.shape[0], F(0), F(unit)
    for r in range(corners):
        q = (r + 1) % corners
        area += ring[r, 0] * ring[q, 1] - ring[r, 1] * ring[q, 0]
    spare = min(F(room) * scale, abs(F(0.5) * area) / scale)
    for n in range(points.shape[0]):
        px, py = points[n, 0], points[n, 1]
        nearest, inside = F(np.inf), False
        for r in range(corners):
            q = (r + 1) % corners
            ax, ay = ring[r, 0], ring[r, 1]
            ex, ey = ring[q, 0] - ax, ring[q, 1] - ay
            dx, dy = px - ax, py - ay
            along = min(max((dx * ex + dy * ey) / max(ex * ex + ey * ey, TINY), F(0)), F(1))
            aside, down = dx - along * ex, dy - along * ey
            nearest = min(nearest, aside * aside + down * down)
            if (ay > py) != (ay + ey > py) and dx < dy * (ex / (ey if ey != F(0) else TINY)):
                inside = not inside
        distance = F(math.sqrt(nearest))
        value = ((distance if inside else -distance) + spare) / (F(soft) * scale)
        out[n] = F(1 / (1 + math.exp(-value)))
