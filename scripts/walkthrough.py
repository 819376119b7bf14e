"""The picture of docs/personalize.md: where a transcript's words were found, and the film beside two customers' videos.

python scripts/walkthrough.py FILM "TRANSCRIPT" NAME=VIDEO … --out docs/personalize.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deployments.contracts import Span
from deployments.media.decode import decode
from deployments.media.probe import probe
from deployments.media.sound import read_sound
from deployments.motion.alignment import align
from serve_app.transcript import RATE, borders, parse_transcript, segments_of, spoken

WIDTH, LEFT, SIDE, WAVE = 960, 90, 138, 150
FACE = (0.315, 0.07, 0.27)  # left, top, side of the astronaut's, in sides of the picture
INK, SOFT, SLOT, PAPER = (28, 36, 48), (90, 102, 117), (231, 192, 224), (255, 255, 255)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow brings."""
    return ImageFont.load_default(size)


def draw_wave(page: ImageDraw.ImageDraw, samples: np.ndarray, transcript: str, seconds: float) -> list[tuple[float, float]]:
    """Sound, words and slots; returns the slots' times."""
    parts = parse_transcript(transcript)
    heard = align(samples, spoken(parts)).words
    across = (WIDTH - LEFT - 20) / seconds
    slots = []
    for number in segments_of(parts):
        places = [k for k, part in enumerate(parts) if part.segment == number]
        start, end = borders(samples, heard, places[0], places[-1], seconds)
        slots.append((start, end))
        page.rectangle((LEFT + start * across, 10, LEFT + end * across, WAVE), fill=SLOT)
        page.text((LEFT + start * across + 4, 12), f"{start:.2f}-{end:.2f} s", fill=INK, font=font(13))
    for x in range(round(seconds * across)):
        part = samples[round(x / across * RATE) : round((x + 1) / across * RATE)]
        tall = 45 * float(np.abs(part).max(initial=0)) / float(np.abs(samples).max())
        page.line((LEFT + x, 72 - tall, LEFT + x, 72 + tall), fill=SOFT)
    for k, found in enumerate(heard):
        page.line((LEFT + found.start * across, 66, LEFT + found.start * across, 118), fill=INK)
        page.text((LEFT + found.start * across + 2, 106 + 15 * (k % 2)), found.text.strip(".,"), fill=INK, font=font(13))
    page.text((10, 64), "the film", fill=INK, font=font(15))
    return slots


def frames_at(path: Path, moments: list[float]) -> list[Image.Image]:
    """The faces of the pictures that are shown at some times."""
    clip, found = probe(path), []
    for moment in moments:
        index = int(np.searchsorted(clip.times(), moment, side="right")) - 1
        picture = Image.fromarray(next(iter(decode(clip, Span(index, index + 1)))).rgb())
        left, top, side = (round(share * min(picture.size)) for share in FACE)
        found.append(picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("film", type=Path)
    parser.add_argument("transcript")
    parser.add_argument("customers", nargs="+", help="NAME=VIDEO")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = [("the film", args.film), *((name, Path(path)) for name, path in (pair.split("=", 1) for pair in args.customers))]
    sheet = Image.new("RGB", (WIDTH, WAVE + 34 + len(rows) * (SIDE + 6)), PAPER)
    page = ImageDraw.Draw(sheet)
    clip = probe(args.film)
    ((start, end),) = draw_wave(page, read_sound(args.film, RATE), args.transcript, float(clip.duration))
    moments = [start * 0.6, *np.linspace(start, end, 6)[1:-1].tolist(), (end + float(clip.duration)) / 2]
    for column, moment in enumerate(moments):
        inside = start <= moment < end
        page.text((LEFT + column * (SIDE + 6), WAVE + 10), f"{moment:.1f} s{', slot' if inside else ''}", fill=INK, font=font(13))
    for row, (name, path) in enumerate(rows):
        top = WAVE + 30 + row * (SIDE + 6)
        page.text((10, top + SIDE // 2), name, fill=INK, font=font(15))
        for column, picture in enumerate(frames_at(path, moments)):
            sheet.paste(picture, (LEFT + column * (SIDE + 6), top))
    sheet.save(args.out, quality=88)


if __name__ == "__main__":
    main()
