"""Two ways to change a document: JSON 6902 operations, and merging maps."""

from __future__ import annotations

import copy
from typing import Any

from deployments.errors import OptionError


def json_patch(document: Any, operations: list[dict[str, Any]]) -> Any:
    """RFC 6902: add, replace, remove and test. Raises OptionError."""
    changed = copy.deepcopy(document)
    for operation in operations:
        *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
        place = changed
        try:
            for part in parents:
                place = place[int(part)] if isinstance(place, list) else place[part]
            apply(place, last, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise OptionError(f"expected {operation['path']} to be there for `{operation['op']}`: {error!r}") from error
    return changed


def apply(place: Any, last: str, operation: dict[str, Any]) -> None:
    """One operation at its place."""
    verb, value = operation["op"], copy.deepcopy(operation.get("value"))
    if isinstance(place, list):
        index = len(place) if last == "-" else int(last)
        if verb == "add":
            place.insert(index, value)
            return
        _ = place[index]
        key: Any = index
    else:
        if verb == "add":
            place[last] = value
            return
        _ = place[last]
        key = last
    if verb == "replace":
        place[key] = value
    elif verb == "remove":
        del place[key]
    elif verb != "test" or place[key] != value:
        raise ValueError(f"{verb}: found {place[key]!r}, expected {value!r}")


def merge(document: Any, change: Any) -> Any:
    """A merge of maps, in which null deletes. Raises OptionError for lists: how they merge depends on the kind's schema."""
    if isinstance(change, list):
        raise OptionError(
            "a merging patch that sets a list: write it as JSON 6902 operations, or render with `kubectl kustomize`"
        )
    if not isinstance(document, dict) or not isinstance(change, dict):
        return copy.deepcopy(change)
    merged = copy.deepcopy(document)
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged
