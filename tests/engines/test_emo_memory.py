"""What all remembered frames say of a mouth: it is right where they were filmed, and it listens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deployments.engines.emo.config import MemoryConfig, WindowConfig
from deployments.engines.emo.memory import FILE, Memory, echo, fit_memory, likeness, load_memory, open_textures, save_memory
from deployments.engines.emo.scene import Scene, mouth_window, told_of
from deployments.errors import WeightsError
from deployments.retrieval.bank import load_bank
from deployments.retrieval.window import small_pictures, to_window

WINDOW = WindowConfig(pixels=1600, light=0.6)
EXACT = MemoryConfig(noise=1e-4)


@pytest.fixture(scope="module")
def scene(talking) -> Scene:
    bank = load_bank(talking.avatar.path)
    window = mouth_window(bank, WINDOW)
    return Scene(bank, small_pictures(bank, window), window)


def told(scene: Scene) -> np.ndarray:
    return told_of(scene.bank, scene.bank.coefficients, scene.bank.angles, scene.bank.frames.astype(np.int64))


def remembered(scene: Scene, rows: np.ndarray, heard: np.ndarray | None = None, config: MemoryConfig = EXACT) -> Memory:
    light = WINDOW.light * scene.window.density
    return fit_memory(scene, rows, told(scene)[rows], None if heard is None else heard[rows], config, light)


def test_lips_that_were_filmed_look_as_they_were_filmed_and_lips_from_nowhere_like_the_mean(scene: Scene) -> None:
    rows = np.arange(len(scene.bank.frames))
    memory, (_, textures) = remembered(scene, rows), open_textures(scene, rows)
    spread = textures.std(0).mean()
    for row in (3, 6, 20):
        away = np.abs(memory.texture(told(scene)[row], None, 1.0, EXACT) - textures[row]).mean()
        assert away < 0.5 * spread, (row, away, spread)
    nowhere = memory.texture(np.full(16, 1e3, np.float32), None, 1.0, EXACT)
    np.testing.assert_allclose(nowhere, memory.mean, atol=1e-3)


def test_a_mouth_that_was_never_filmed_is_told_by_its_neighbours(scene: Scene) -> None:
    """The widest mouths are left out; a memory of the others draws them better than the mean of those does."""
    bank = scene.bank
    opening = bank.coefficients[:, np.abs(bank.coefficients.std(0)).argmax()]
    hidden = np.argsort(opening)[len(opening) // 2 :: 4]
    rows = np.setdiff1d(np.arange(len(opening)), hidden)
    memory, plain = remembered(scene, rows, config=MemoryConfig()), []
    for row in hidden.tolist():
        target = to_window(scene.window.matrix(bank.stable, bank.vertices[row]), bank.vertices[row])
        truth = scene.start(target, np.array([row], np.int32), np.ones(1, np.float32))
        far = scene.start(target, rows[[0, 5]].astype(np.int32), np.full(2, 0.5, np.float32))
        added = memory.added(scene, far, memory.texture(told(scene)[row], None, 1.0, MemoryConfig()), WINDOW)
        before = (truth.picture - far.picture).transpose(1, 2, 0)
        plain.append((np.square(before).sum(), np.square(before - 0.5 * added).sum()))
    before, after = np.sum(plain, 0)
    assert after < before


def test_it_listens_as_much_as_it_is_told_to(scene: Scene) -> None:
    """The same lips: what alike sounds look like shows, twice as much at 2, and not at 0."""
    count = len(scene.bank.frames)
    heard = np.where(np.arange(count)[:, None] % 2 == 0, 1.0, -1.0).astype(np.float32) * np.full((count, 4), 6.0, np.float32)
    config = MemoryConfig(listens=0.5)
    memory = remembered(scene, np.arange(count), heard, config)
    lips = told(scene)[6]
    one, other = ({says: memory.texture(lips, heard[k], says, config) for says in (0.0, 1.0, 2.0)} for k in (0, 1))
    np.testing.assert_array_equal(one[0.0], other[0.0])
    assert np.abs(one[1.0] - other[1.0]).max() > 0.5
    np.testing.assert_allclose(one[2.0] - one[0.0], 2 * (one[1.0] - one[0.0]), atol=1e-2)
    np.testing.assert_array_equal(memory.texture(lips, None, 1.0, config), one[0.0])  # nothing heard: nothing is said


def test_alike_is_one_for_the_same_and_falls_with_every_difference() -> None:
    config, at = MemoryConfig(), np.zeros((1, 16), np.float32)
    for place, reach in ((2, config.lips), (9, config.head)):
        other = at.copy()
        other[0, place] = reach
        assert likeness(at, at, config)[0, 0] == 1
        assert likeness(at, other, config)[0, 0] == pytest.approx(np.exp(-0.5))
    other = at.copy()
    other[0, 12] = 9  # speed says nothing of the look
    assert likeness(at, other, config)[0, 0] == 1
    sounds = np.zeros((2, 3), np.float32)
    sounds[1, 0] = config.sound
    assert echo(sounds[:1], sounds, config)[0].tolist() == pytest.approx([1, np.exp(-0.5)])


def test_what_is_written_is_read_and_a_damaged_file_is_refused(scene: Scene, tmp_path: Path) -> None:
    memory = remembered(scene, np.arange(12))
    save_memory(memory, tmp_path)
    found = load_memory(tmp_path)
    lips = told(scene)[4]
    one, other = (each.texture(lips, None, 1.0, EXACT) for each in (memory, found))
    np.testing.assert_allclose(one, other, atol=0.5)  # levels: pictures are kept in half precision
    assert found.heard.shape == (12, 0)
    tensors = load_file(tmp_path / FILE)
    save_file({name: tensor for name, tensor in tensors.items() if name != "basis"}, tmp_path / FILE)
    with pytest.raises(WeightsError, match="basis"):
        load_memory(tmp_path)
    for name, wrong in (
        ("ghost", np.zeros(3, np.float32)),
        ("weights", tensors["weights"][1:]),
        ("told", tensors["told"][:, 1:]),
    ):
        save_file({**tensors, name: wrong}, tmp_path / FILE)
        with pytest.raises(WeightsError, match=name):
            load_memory(tmp_path)
    (tmp_path / FILE).write_bytes(b"\x80\x04pickle")
    with pytest.raises(WeightsError, match="safetensors"):
        load_memory(tmp_path)


def test_fine_texture_is_left_to_the_nearest_picture(scene: Scene) -> None:
    memory, bank = remembered(scene, np.arange(len(scene.bank.frames))), scene.bank
    target = to_window(scene.window.matrix(bank.stable, bank.vertices[5]), bank.vertices[5])
    start = scene.start(target, np.array([5], np.int32), np.ones(1, np.float32))
    speckled = replace(memory, basis=0 * memory.basis, mean=np.indices(memory.mean.shape).sum(0).astype(np.float32) % 2 * 255)
    smooth = replace(speckled, mean=np.full_like(memory.mean, 127.5))
    fine, plain = (each.added(scene, start, each.mean, WINDOW) for each in (speckled, smooth))
    assert np.abs(fine - plain)[8:-8, 8:-8].mean() < 0.05  # of a pattern that swings by 0.5 on either side
