"""The door for files of strangers: fetched from checked addresses only, looked at by a bounded process of their own."""

from __future__ import annotations

from serve_app.intake.address import AddressRule
from serve_app.intake.check import MediaFacts, MediaLimits, check_media
from serve_app.intake.errors import TooLarge, UrlFailed, UrlRefused
from serve_app.intake.fetch import fetch_url

__all__ = ["AddressRule", "MediaFacts", "MediaLimits", "TooLarge", "UrlFailed", "UrlRefused", "check_media", "fetch_url"]
