"""Who is calling: a key from the Authorization header, compared as a hash, in constant time."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

from fastapi import Depends, Request

from serve_app.api.errors import ApiError
from serve_app.api.services import Door, Services

ANONYMOUS = "anonymous"


def owner_of(request: Request, services: Door) -> str:
    """Whose jobs the caller sees: a short hash of the key. Raises ApiError (401)."""
    return owner_by(services, request.headers.get("authorization", ""))


def owner_by(services: Services, authorization: str) -> str:
    """The same of the header's text."""
    known = services.settings.api_keys
    if not known:
        return ANONYMOUS
    scheme, _, key = authorization.partition(" ")
    digest = hashlib.sha256(key.strip().encode()).hexdigest()
    # all are compared, so that time tells nothing of which one fits
    fits = [hmac.compare_digest(digest, one.lower()) for one in known]
    if scheme.lower() != "bearer" or not any(fits):
        came = "another key" if key else "no key"
        raise ApiError(f"expected 'Authorization: Bearer KEY' with a key of this server, got {came}", 401, "invalid_api_key")
    return digest[:16]


Owner = Annotated[str, Depends(owner_of)]
