"""What can be wrong with an address or with what lies there."""

from __future__ import annotations

from deployments.errors import InputError


class UrlRefused(InputError):
    """An address that this service does not ask: another scheme, or a host that is not on the open internet."""

    code = "url_refused"


class UrlFailed(InputError):
    """The address was asked and gave no file: unreachable, too slow, an error, too many redirects."""

    code = "url_failed"


class TooLarge(InputError):
    """More bytes than are accepted."""

    http_status = 413
    code = "too_large"
