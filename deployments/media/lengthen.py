"""The source's sound with more time in it, where slots of its picture were made longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from deployments.media.sound import SourceSound


def lengthen(source: SourceSound, start: Fraction, inserted: Sequence[tuple[Fraction, Fraction]]) -> SourceSound:
    """The track with (seconds after `start`, seconds more) inserted, exact to the sample; new speech lies over it.

    What is inserted is what follows, backwards: should a sample of it be heard, it joins without a click.
    """
    samples, parts, taken, late = source.samples, [], 0, Fraction(0)
    for at, more in inserted:
        place = min(max(round((start + at - source.start) * source.rate), taken), len(samples))
        count = round((late + more) * source.rate) - round(late * source.rate)
        after = samples[place : place + count][::-1]
        parts += [samples[taken:place], np.pad(after, ((count - len(after), 0), (0, 0)))]
        taken, late = place, late + more
    return replace(source, samples=np.concatenate([*parts, samples[taken:]]))
