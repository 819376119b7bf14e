"""Pictures: the right colours, upright, and patches that touch only what they cover."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deployments.contracts import Clip, Patch
from deployments.media.color import color_rule
from deployments.media.decode import YuvPicture, plane_array

FORMATS = ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"]


def make(
    rotation: int = 0, pix_fmt: str = "yuv420p", size: tuple[int, int] = (64, 48), space: int = 1, full: bool = False
) -> YuvPicture:
    """A picture of smooth noise, as a decoder would give it."""
    rng = np.random.default_rng(7)
    deep = pix_fmt.endswith("10le")
    frame = av.VideoFrame(*size, pix_fmt)
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    for k, plane in enumerate(frame.planes):
        values = plane_array(plane, 10 if deep else 8)
        coarse = rng.integers(*((110, 146) if k else (70, 180)), (values.shape[0] // 8 + 1, values.shape[1] // 8 + 1)) * (
            4 if deep else 1
        )
        values[:] = np.kron(coarse, np.ones((8, 8), int))[: values.shape[0], : values.shape[1]]
    turned = rotation in (90, 270)
    clip = Clip(
        path=Path("none"), width=size[1] if turned else size[0], height=size[0] if turned else size[1], rotation=rotation,
        codec="h264", pix_fmt=pix_fmt, bit_depth=10 if deep else 8, time_base=Fraction(1, 25), pts=np.arange(1),
        keyframes=np.arange(1), duration=Fraction(1, 25), average_rate=Fraction(25),
        color={"primaries": space, "trc": space, "space": space, "range": 2 if full else 1},
    )  # fmt: skip
    return YuvPicture(clip, 0, frame, color_rule(clip))


def planes(picture: YuvPicture) -> list[np.ndarray]:
    deep = picture.frame().format.name.endswith("10le")
    return [plane_array(plane, 10 if deep else 8).copy() for plane in picture.frame().planes]


@pytest.mark.parametrize("space", [1, 5, 6, 9])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv444p10le"])
def test_colours_follow_the_tags(space: int, full: bool, pix_fmt: str) -> None:
    picture = make(pix_fmt=pix_fmt, space=space, full=full)
    red, blue = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[space]
    unit = 4 if pix_fmt.endswith("10le") else 1
    y, u, v = (plane.astype(float) / unit for plane in planes(picture))
    luma = y / 255 if full else (y - 16) / 219
    cb, cr = (u - 128) / (255 if full else 224), (v - 128) / (255 if full else 224)
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    g = (luma - red * r - blue * b) / (1 - red - blue)
    expected = np.clip(np.stack([r, g, b], -1), 0, 1) * 255
    assert np.abs(picture.rgb() - expected).max() < 3


@pytest.mark.parametrize("pix_fmt", FORMATS)
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("box", [(0, 0, 12, 10), (5, 7, 13, 9), (-3, -5, 20, 20), (37, 39, 50, 50)])
@pytest.mark.parametrize("size", [(64, 48), (61, 47)])
def test_own_pixels_and_clear_patches_change_nothing(
    pix_fmt: str, rotation: int, box: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    picture = make(rotation, pix_fmt, size)
    before, rgb = planes(picture), picture.rgb()
    x, y, w, h = box
    padded = np.pad(rgb, ((64, 64), (64, 64), (0, 0)), mode="edge")
    own = padded[y + 64 : y + 64 + h, x + 64 : x + 64 + w]
    picture.paste(Patch(x, y, own, np.ones((h, w), np.float32)))
    picture.paste(Patch(x, y, 255 - own, np.zeros((h, w), np.float32)))
    assert all(np.array_equal(a, b) for a, b in zip(before, planes(picture), strict=True))


@pytest.mark.parametrize("pix_fmt", FORMATS)
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_patch_lands_where_it_was_put(pix_fmt: str, rotation: int) -> None:
    picture = make(rotation, pix_fmt, (61, 47))
    before, old = planes(picture), picture.rgb().astype(int)
    alpha = np.zeros((16, 18), np.float32)
    alpha[2:-2, 2:-2] = 1
    wanted = np.full((16, 18, 3), (150, 120, 110), np.uint8)
    picture.paste(Patch(11, 9, wanted, alpha))
    new = picture.rgb().astype(int)
    assert np.abs(new[14:20, 16:24] - wanted[0, 0]).max() < 20
    changed = np.abs(new - old).max(2) > 0
    assert not changed[:9].any() and not changed[26:].any() and not changed[:, :11].any() and not changed[:, 30:].any()
    luma_changed = np.rot90(before[0] != planes(picture)[0], rotation // 90)
    assert not luma_changed[9:25, 11:29][alpha == 0].any() and luma_changed.any()


def test_painting_leaves_the_decoders_frame_alone() -> None:
    picture = make()
    source = picture.frame()
    before = plane_array(source.planes[0], 8).copy()
    picture.paste(Patch(4, 4, np.zeros((20, 20, 3), np.uint8), np.ones((20, 20), np.float32)))
    assert np.array_equal(before, plane_array(source.planes[0], 8))


@pytest.mark.parametrize("box", [(0, 0, 16, 16), (7, 5, 25, 21), (20, 11, 28, 37), (3, 0, 1, 1), (31, 40, 17, 8)])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("pix_fmt", FORMATS)
@pytest.mark.parametrize("size", [(64, 48), (70, 54), (63, 49)])
def test_a_window_is_a_cut_of_the_picture(
    box: tuple[int, int, int, int], rotation: int, pix_fmt: str, size: tuple[int, int]
) -> None:
    x, y, width, height = box
    picture, twin = (make(rotation, pix_fmt, size) for _ in range(2))
    expected = twin.rgb()[y : y + height, x : x + width]
    assert picture.size() == twin.rgb().shape[:2]
    np.testing.assert_array_equal(picture.window(x, y, *expected.shape[1::-1]), expected)
