"""What is learned from: frames of the template, each started from pictures that are not its own or its neighbours'."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deployments.contracts import Track
from deployments.engines.emo.autoencoder import Autoencoder
from deployments.engines.emo.config import EmoConfig
from deployments.engines.emo.flow import Rows, Take
from deployments.engines.emo.hearing import Heard
from deployments.engines.emo.memory import Memory, fit_memory
from deployments.engines.emo.scene import Scene, Start, detail, face_window, rim, runs_of, shown, told_of
from deployments.face.composite import match_rim
from deployments.retrieval.bank import Bank
from deployments.retrieval.select import Choice, select_without_self
from deployments.retrieval.sounds import Sounds
from deployments.retrieval.warp import soft_mask
from deployments.retrieval.window import Floats, Window, frame_view, scale_of, shrunk, to_window
from kernels.mesh_warp import rasterize

BLOCK = 24  # rows that are learned together: temporal layers need neighbours
HELD_OUT = 72  # rows that judge, at most
ENCODED = 64  # pictures at once


@dataclass(frozen=True)
class Pictures:
    """n rows, V ways to look up: starts and truths on grey [V, n, 3, H, W] bytes; planes [V, n, 8, H/4, W/4]."""

    starts: NDArray[np.uint8]
    truths: NDArray[np.uint8]
    planes: Floats
    alpha: Floats  # [n, H, W] where the generated part shows


class Lessons:
    """Lessons of one bank. `rows` are the bank's rows that are looked at; `train` and `judged` index them."""

    def __init__(self, scene: Scene, track: Track, heard: Heard | None, config: EmoConfig) -> None:
        bank, sounds = scene.bank, None if heard is None else Sounds(heard.sounds, heard.sounds)
        self.scene, self.config = scene, config
        count = len(bank.frames)
        last = count - max(config.denoiser.window, int(count * config.fit.held_out))
        learned, unseen = np.arange(last - config.fit.exclude[0]), np.arange(last, count)
        learned, unseen = blocks(learned, config.fit.most), blocks(unseen, HELD_OUT)
        self.rows = np.concatenate([learned, unseen])
        self.train, self.judged = np.arange(len(learned)), len(learned) + np.arange(len(unseen))
        hidden = np.arange(count) >= last
        self.choices = [select_without_self(bank, radius, hidden, config, sounds) for radius in config.fit.exclude]
        self.pictures = self._draw()
        frames = bank.frames[self.rows].astype(np.int64)
        self.run = runs_of(frames, track)
        self.run[self.judged] += self.run.max() + 1
        self.told = told_of(bank, bank.coefficients[self.rows], bank.angles[self.rows], frames)
        self.heard = None if heard is None else heard.told[self.rows]
        self.anchors = anchors_of(bank, self.rows[self.train], config.denoiser.references)
        away = np.abs(frames[:, None] - bank.frames[self.anchors][None]) > max(config.fit.exclude)
        self.apart = away | ~away.any(1, keepdims=True)

    def start(self, index: int) -> Start:
        """The picture that a row starts from, of mouths near to it."""
        row, choice = int(self.rows[index]), self.choices[0]
        target = to_window(self._view(row, self.scene.window)[0], self.scene.bank.vertices[row])
        return self.scene.start(target, choice.rows[row], choice.weights[row])

    def memory(self, chosen: NDArray[np.int64]) -> Memory:
        """What the chosen rows together say of the mouth."""
        heard, light = None if self.heard is None else self.heard[chosen], self.config.window.light * self.scene.window.density
        return fit_memory(self.scene, self.rows[chosen], self.told[chosen], heard, self.config.memory, light)

    def references(self) -> Floats:
        """The person's own pictures [R, 3, H, W] that the reference branch reads."""
        out = []
        for row in self.anchors:
            matrix, view = self._view(int(row), self.scene.window)
            target = to_window(matrix, self.scene.bank.vertices[row])
            out.append(shown(view, self.scene.start(target, np.array([row], np.int32), np.ones(1, np.float32)).alpha))
        return np.stack(out)

    def encoded(self, code: Autoencoder, device: torch.device) -> Encoded:
        """All lessons as latents."""
        rows = [
            Rows(_taker(starts, planes), *self._known(device))
            for starts, planes in zip(
                (encode_all(code, part, device) for part in self.pictures.starts),
                (torch.from_numpy(part).to(device) for part in self.pictures.planes),
                strict=True,
            )
        ]
        truths = torch.stack([encode_all(code, part, device) for part in self.pictures.truths])
        shows = torch.nn.functional.avg_pool2d(torch.from_numpy(self.pictures.alpha)[:, None], 4).to(device)
        lips = torch.from_numpy(self.pictures.planes[0][:, 1:2]).to(device)
        return Encoded(rows, truths, shows * (0.2 + lips * 2 + 0.8))

    def _known(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None, NDArray[np.int64], torch.Tensor]:
        heard = None if self.heard is None else torch.from_numpy(self.heard).to(device)
        return torch.from_numpy(self.told).to(device), heard, self.run, torch.from_numpy(self.apart).to(device)

    def _view(self, row: int, window: Window) -> tuple[NDArray[np.float64], Floats]:
        bank, small = self.scene.bank, self.scene.small
        matrix = window.matrix(bank.stable, bank.vertices[row])
        return matrix, frame_view(small[row], shrunk(matrix, scale_of(bank, small)), window)

    def _draw(self) -> Pictures:
        scene, window = self.scene, self.scene.window
        face, fade = face_window(scene.bank, self.config.window), rim(self.scene.window)
        starts, truths, planes, alphas = [], [], [], []
        for row in self.rows.tolist():
            matrix, view = self._view(row, window)
            target = to_window(matrix, scene.bank.vertices[row])
            made = [scene.start(target, c.rows[row], c.weights[row]) for c in self.choices]
            shifts = [self._shift(row, face, choice) for choice in self.choices]
            starts.append([as_bytes(start.picture) for start in made])
            lacking = [
                detail(s.alpha[..., None] * (view - shift - s.raw), window, self.config.window)
                for s, shift in zip(made, shifts, strict=True)
            ]
            truths.append([as_bytes(shown(s.raw + part, s.alpha)) for s, part in zip(made, lacking, strict=True)])
            planes.append([start.planes for start in made])
            alphas.append(made[0].alpha * fade)
        first, second, third = (np.ascontiguousarray(np.swapaxes(np.array(part), 0, 1)) for part in (starts, truths, planes))
        return Pictures(first, second, third, np.stack(alphas))

    def _shift(self, row: int, face: Window, choice: Choice) -> Floats:
        """What matching colours at the rim of the whole face adds to a row's looked-up picture, in the mouth window."""
        scene = self.scene
        matrix, view = self._view(row, face)
        target = to_window(matrix, scene.bank.vertices[row])
        raster = rasterize(scene.bank.mesh.triangles, target, face.height, face.width)
        picture = scene.warped(raster, int(choice.rows[row][0]))
        for other, weight in zip(choice.rows[row][1:], choice.weights[row][1:], strict=True):
            picture += weight / choice.weights[row][0] * scene.warped(raster, int(other))
        picture *= choice.weights[row][0]
        shift = match_rim(picture, view, soft_mask(scene.bank, raster, target)) - picture
        mouth, ratio = scene.window, face.density / scene.window.density
        move = np.array([[ratio, 0, (mouth.left - face.left) * face.density], [0, ratio, (mouth.top - face.top) * face.density]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        moved = cv2.warpAffine(shift, move, (mouth.width, mouth.height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, np.float32)


@dataclass(frozen=True)
class Encoded:
    """Lessons as latents: rows for every way to look up, truths [V, n, C, h, w], weight [n, 1, h, w]."""

    rows: list[Rows]
    truths: torch.Tensor
    weight: torch.Tensor


def blocks(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most `most` of the rows, in blocks that are evenly spread."""
    if len(rows) <= most:
        return rows
    count = len(rows) // BLOCK
    chosen = np.unique(np.linspace(0, count - 1, most // BLOCK).astype(np.int64))
    return rows[(chosen[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)]


def anchors_of(bank: Bank, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Rows of mouths that are as unlike as can be: the widest open, then always the one farthest from those chosen."""
    shapes = bank.coefficients[rows]
    chosen = [int(np.linalg.norm(shapes - shapes.mean(0), axis=1).argmax())]
    distance = np.linalg.norm(shapes - shapes[chosen[0]], axis=1)
    for _ in range(count - 1):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(shapes - shapes[chosen[-1]], axis=1))
    return rows[np.sort(chosen)]


@torch.no_grad()
def encode_all(code: Autoencoder, pictures: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """Latents [n, C, h, w] of pictures [n, 3, H, W]."""
    parts = [pictures[k : k + ENCODED] for k in range(0, len(pictures), ENCODED)]
    return torch.cat([code.encode(torch.from_numpy(part).to(device).float() / 255).contiguous() for part in parts])


def as_bytes(picture: Floats) -> NDArray[np.uint8]:
    """0..1 -> 0..255."""
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)


def _taker(starts: torch.Tensor, planes: torch.Tensor) -> Take:
    return lambda rows: (starts[rows], planes[rows])
