"""What a caller may choose for a portrait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from deployments.errors import OptionError
from deployments.portrait.controls import Controls

NOTHING_ASKED = Controls()


@dataclass(frozen=True)
class PortraitOptions:
    """Options of `render_portrait`; every strength is a factor on the natural amount."""

    seed: int = 0
    head_motion: float = 1.0  # 0 keeps the head still
    blink: float = 1.0  # blinks per natural blink; 0: none
    mouth: float = 1.0  # mouth opening and protrusion
    face: str = "largest"  # which face: "largest", an index, or a box "x,y,w,h"
    controls: Controls = NOTHING_ASKED

    def __post_init__(self) -> None:
        for name in ("head_motion", "blink", "mouth"):
            value = getattr(self, name)
            if not 0.0 <= value <= 2.0:
                raise OptionError(f"{name} must lie in 0..2, got {value}; 1 is the natural amount")


def options_from(values: Mapping[str, Any]) -> PortraitOptions:
    """Options from names and values. Raises OptionError for a name or a type that is not known."""
    defaults = PortraitOptions()
    known = {field.name: type(getattr(defaults, field.name)) for field in fields(PortraitOptions) if field.name != "controls"}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise OptionError(f"portrait options are {', '.join(known)}; got {', '.join(unknown)}")
    try:
        return PortraitOptions(**{name: known[name](value) for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise OptionError(f"a portrait option has a wrong type: {error}") from None
