"""Every error that a user can meet, drawn as a tree.

    LipSyncError
    |-- InputError               exit 2, HTTP 400: what came in cannot be used
    |   |-- MediaError           not a video, truncated, no picture, too large, unknown codec
    |   |-- NoFaceError          no usable face anywhere, or not the one that was asked for
    |   |-- SpeechError          no samples, NaN samples, text that the voice cannot speak
    |   `-- OptionError          an option or a combination of options that means nothing
    |-- OutputError              exit 3, HTTP 507: the result cannot be written where it was asked for
    |-- WeightsError             exit 4, HTTP 503: a model file is missing or not the one in the manifest
    |-- RenderError              exit 5, HTTP 500: a chunk failed; names the span and the cause
    `-- Cancelled                exit 130: the caller asked to stop

A message says what was expected, what came, and what to do next.
"""

from __future__ import annotations


class LipSyncError(Exception):
    """Base of all errors that are meant for users."""

    exit_code = 1
    http_status = 500
    code = "lipsync_error"


class InputError(LipSyncError):
    """What came in cannot be used."""

    exit_code = 2
    http_status = 400
    code = "invalid_input"


class MediaError(InputError):
    """A media file is not what it should be."""

    code = "invalid_media"


class NoFaceError(InputError):
    """No usable face was found, or not the one that was asked for."""

    code = "no_face"


class SpeechError(InputError):
    """The new speech cannot be used."""

    code = "invalid_speech"


class OptionError(InputError):
    """An option, or a combination of options, means nothing here."""

    code = "invalid_option"


class OutputError(LipSyncError):
    """The result cannot be written where it was asked for."""

    exit_code = 3
    http_status = 507
    code = "output_not_writable"


class WeightsError(LipSyncError):
    """A model file is missing, or is not the one named in the manifest."""

    exit_code = 4
    http_status = 503
    code = "weights_unavailable"


class RenderError(LipSyncError):
    """A chunk could not be rendered."""

    exit_code = 5
    code = "render_failed"


class Cancelled(LipSyncError):
    """The caller asked to stop."""

    exit_code = 130
    http_status = 409
    code = "cancelled"
