"""Engines side by side on real people: unseen mouths, driven by their true landmarks.

python -m benchmarks.engines FOLDER_OF_CLIPS [--engine NAME ...] [--clip STEM ...] [--save PNG_FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks.engines.self_reconstruction import reconstruct, split_of
from deployments.contracts import Clip, Track
from deployments.errors import LipSyncError
from deployments.face.track import Refine, track_clip
from deployments.media.probe import probe
from deployments.motion.refine import refine_lips
from deployments.settings import cache_folder
from serve_app.cache import TRACK_CODE, code_version, digest_of, open_cache

BASE = "video_rewrite"
SHOWN = ("mask", "mouth", "lmd", "sharp", "flicker", "fit_cpu_s", "render_cpu_ms")
MEDIA = (".mp4", ".mov", ".mpg")


def tracked(clip: Clip, refine: Refine | None = refine_lips) -> Track:
    """The carefully tracked face, kept between runs; without `refine` the lips are as the mesh model has them."""
    key = digest_of("benchmark track", clip.digest, refine is not None, code_version(TRACK_CODE))
    track, _ = open_cache(cache_folder()).track(key, lambda: track_clip(clip, passes=3, refine=refine))
    return track


def main() -> None:
    """One row a clip and engine; the JSON is written after each of them, so that a stopped run loses nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--engine", action="append", help=f"default: {BASE}")
    parser.add_argument("--clip", action="append", help="stem of a file; default: all")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    files = sorted(path for path in options.clips.iterdir() if path.suffix in MEDIA)
    found = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    for path in (path for path in files if not options.clip or path.stem in options.clip):
        clip = probe(path)
        for name in options.engine or [BASE]:
            try:
                judge = tracked(clip, refine=None)
                row = reconstruct(path, split_of(path.stem, clip.frames), name, tracked(clip), options.save, judge)
            except LipSyncError as error:
                print(f"{path.stem:28} {name:20} {error}", flush=True)
                continue
            row["load"] = os.getloadavg()[0]
            found.setdefault(path.stem, {})[name] = row
            print(f"{path.stem:28} {name:20}", *(f"{key} {row[key]:.2f}" for key in SHOWN), flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
