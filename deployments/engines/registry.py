"""The engines by name: an explicit table, imported only when one is asked for."""

from __future__ import annotations

from importlib import import_module

from deployments.contracts import Engine
from deployments.errors import OptionError

ENGINES: dict[str, tuple[str, str]] = {
    "video_rewrite": ("deployments.engines.video_rewrite.engine", "VideoRewrite"),
    "portrait": ("deployments.engines.portrait.engine", "Portrait"),
    "fake": ("deployments.engines.fake.engine", "Fake"),
}
HIDDEN = ("fake",)  # for tests: it paints a patch, it does not move a mouth


def engine_names() -> tuple[str, ...]:
    """Names that a user may choose."""
    return tuple(name for name in ENGINES if name not in HIDDEN)


def get_engine(name: str) -> Engine:
    """The engine called `name`, fresh. Raises OptionError that lists the known ones."""
    if name not in ENGINES:
        raise OptionError(f"expected an engine of {', '.join(engine_names())}; got {name!r}; see `lipsync models`")
    module, attribute = ENGINES[name]
    engine: Engine = getattr(import_module(module), attribute)()
    return engine
