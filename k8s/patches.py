"""Two ways to change a document: JSON 6902 operations, and merging in the way of Kubernetes."""

from __future__ import annotations

import copy
from typing import Any

from deployments.errors import OptionError

KEYS = ("name", "groupName")  # by which items of a list are the same one


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
    """A strategic merge: maps are merged, null deletes, lists of named items are merged by name, others are replaced."""
    if isinstance(document, dict) and isinstance(change, dict):
        merged = copy.deepcopy(document)
        for key, value in change.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = merge(merged[key], value) if key in merged else copy.deepcopy(value)
        return merged
    if isinstance(document, list) and isinstance(change, list):
        key = list_key(document + change)
        if key is not None:
            return merge_lists(document, change, key)
    return copy.deepcopy(change)


def list_key(items: list[Any]) -> str | None:
    """The field by which all items are known, if there is one."""
    for key in KEYS:
        if items and all(isinstance(item, dict) and key in item for item in items):
            return key
    return None


def merge_lists(items: list[Any], changes: list[Any], key: str) -> list[Any]:
    """Known items changed in place, new ones in front, as Kubernetes does it."""
    by_name = {change[key]: change for change in changes}
    known = {item[key] for item in items}
    new = [copy.deepcopy(change) for change in changes if change[key] not in known]
    return new + [merge(item, by_name[item[key]]) if item[key] in by_name else copy.deepcopy(item) for item in items]
