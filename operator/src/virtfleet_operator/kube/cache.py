"""The objects the operator has seen, in memory, by kind and key, with indexes.

It is filled by the watch and by the answers to the operator's own writes, so the operator reads what it has written
even before the watch shows it. An older version never replaces a newer one.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from virtfleet_api.kinds import KINDS
from virtfleet_api.resource import ObjectMeta, Resource
from virtfleet_operator.core.parse import parse, parse_metadata, parse_status
from virtfleet_operator.core.verdict import Invalid
from virtfleet_operator.kube.client import Body
from virtfleet_operator.kube.paths import Key

_KIND: Final[dict[str, type[Resource]]] = {kind.__name__: kind for kind in KINDS}

TOMBSTONES: Final = 10_000
"""Deleted UIDs that are remembered: an answer to a write that was under way must not bring its object back."""


@dataclass(frozen=True)
class Stored:
    """One version of an object."""

    key: Key
    body: Body

    @property
    def version(self) -> int:
        """Return the resourceVersion as a number: within one kind the API server counts upwards."""
        return int(self.body["metadata"]["resourceVersion"])

    @property
    def uid(self) -> str:
        """Return the UID."""
        return str(self.body["metadata"]["uid"])

    @cached_property
    def meta(self) -> ObjectMeta:
        """Return the parsed metadata."""
        return parse_metadata(self.body)

    @cached_property
    def status(self) -> Any:
        """Return the parsed status."""
        return parse_status(_KIND[self.key.kind], self.body)

    @cached_property
    def resource(self) -> Resource | Invalid:
        """Return the parsed object, or what is wrong with it."""
        return parse(_KIND[self.key.kind], self.body)


IndexValues = Callable[[Stored], Iterable[str]]
CacheListener = Callable[[Key, Stored | None, Stored | None], None]


def build_key(kind: str, body: Mapping[str, Any]) -> Key:
    """Return the key of an object's JSON."""
    metadata = body["metadata"]
    return Key(kind, metadata.get("namespace", ""), metadata["name"])


class Cache:
    """The objects of virtfleet's kinds."""

    def __init__(self, indexers: Mapping[str, Mapping[str, IndexValues]]) -> None:
        """Take for each kind the indexes that are kept of it; `uid` is kept of every kind."""
        self._indexers = {kind: {"uid": _uid, **indexers.get(kind, {})} for kind in _KIND}
        self._objects: dict[str, dict[Key, Stored]] = {kind: {} for kind in _KIND}
        self._indexes: dict[tuple[str, str, str], dict[Key, None]] = {}
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self._listeners: list[CacheListener] = []

    def listen(self, listener: CacheListener) -> None:
        """Have every change told: key, old version, new version."""
        self._listeners.append(listener)

    def get(self, key: Key) -> Stored | None:
        """Return an object as it was seen last."""
        return self._objects[key.kind].get(key)

    def all(self, kind: str) -> Iterator[Stored]:
        """Yield the objects of a kind."""
        yield from tuple(self._objects[kind].values())

    def find(self, kind: str, index: str, value: str) -> list[Stored]:
        """Return the objects that have the value in the index."""
        return [self._objects[kind][key] for key in self._indexes.get((kind, index, value), ())]

    def put(self, kind: str, body: Body) -> bool:
        """Take a version of an object; return whether it is news."""
        body["metadata"].pop("managedFields", None)  # as large as the object, and nobody here reads it
        new = Stored(build_key(kind, body), body)
        old = self._objects[kind].get(new.key)
        if new.uid in self._deleted or (old and old.version > new.version):
            return False
        if old and old.uid != new.uid:  # nobody has told yet that the former one is gone
            self.remove(old.key, old.uid)
            old = None
        if old:
            _restore_pruned(old, body)
            if old.version == new.version and old.body.get("spec") == body.get("spec"):
                return False
        self._change(new.key, old, new)
        return True

    def remove(self, key: Key, uid: str) -> bool:
        """Take the deletion of an object; return whether it is news."""
        self._deleted[uid] = None
        if len(self._deleted) > TOMBSTONES:
            self._deleted.popitem(last=False)
        old = self._objects[key.kind].get(key)
        if old is None or old.uid != uid:
            return False
        self._change(key, old, None)
        return True

    def _change(self, key: Key, old: Stored | None, new: Stored | None) -> None:
        if old:
            self._unindex(old)
        if new:
            self._objects[key.kind][key] = new
            self._index(new)
        else:
            del self._objects[key.kind][key]
        for listener in self._listeners:
            listener(key, old, new)

    def _index(self, stored: Stored) -> None:
        for place in self._places(stored):
            self._indexes.setdefault(place, {})[stored.key] = None

    def _unindex(self, stored: Stored) -> None:
        for place in self._places(stored):
            keys = self._indexes[place]
            del keys[stored.key]
            if not keys:
                del self._indexes[place]

    def _places(self, stored: Stored) -> set[tuple[str, str, str]]:
        indexers = self._indexers[stored.key.kind].items()
        return {(stored.key.kind, name, value) for name, values in indexers for value in values(stored)}


def _restore_pruned(old: Stored, body: Body) -> None:
    """Put back the fields of a spec that were left out on the way.

    For some minutes after a CRD has got new fields, the API server's open watches go on without them, while answers to
    writes have them. No spec changes without its generation: of two that differ, the longer one is whole.
    """
    before, after = old.body.get("spec"), body.get("spec")
    same = old.body["metadata"].get("generation") == body["metadata"].get("generation")
    if same and before != after and len(json.dumps(before)) > len(json.dumps(after)):
        body["spec"] = before


def _uid(stored: Stored) -> Iterable[str]:
    return (stored.uid,)
