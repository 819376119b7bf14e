"""The application: talks to the world, decides, joins.

from serve_app import LipSync
LipSync("video_rewrite").process_video("in.mp4", "speech.wav", "out.mp4")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve_app.unified import AdvancedModelManager, ExtendedLipSyncProcessor, LipSync

__all__ = ["AdvancedModelManager", "ExtendedLipSyncProcessor", "LipSync"]


def __getattr__(name: str) -> object:
    """Import on first use: `import serve_app` alone loads nothing heavy."""
    if name in __all__:
        from serve_app import unified

        return getattr(unified, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
