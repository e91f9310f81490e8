"""Stores on object storage: a proxy before a real S3 server sees every request."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from faults.backend import Backend
from faults.injector import Ended, Fault, Injector, plain
from faults.scenarios import Scenario
from lookalike.store import s3_client
from lookalike.store.objects import Store, open_store
from lookalike.store.s3_uri import parse
from tests.s3_server import BUCKET, KEYS, faulty_proxy, s3_server, store_uri

_ACTIONS = (
    "500 before",
    "500 after",
    "cut before",
    "cut after",
    "half a request",
    "late",
    "kill before",
    "kill after",
    "kill, late",
)
_CHANGES = ("PUT", "POST", "DELETE")


class BucketBackend(Backend):
    """Prefixes of one bucket; `s3_server` says what the words mean.

    Whatever a client has asked for again counts again, and has its turn.
    """

    name = "bucket"
    points: ClassVar = {
        "PUT": _ACTIONS,  # of an object, or a part of one
        "POST": (*_ACTIONS, "half an answer"),  # an upload begins or ends, objects are removed
        "DELETE": _ACTIONS,
        "GET": ("cut before", "half an answer"),
        "HEAD": ("cut before",),
    }
    reaching = frozenset({"kill, late"})

    def __init__(self, folder: Path) -> None:
        # That of commands has their leases; what it keeps of files is removed before each.
        self._cache, self._looked, self._made = folder / "cache", folder / "looked", 0
        with ExitStack() as stack:
            stack.enter_context(_environment(KEYS))
            # Moto's, which can be told to take parts as small as `server` makes them.
            stack.enter_context(_environment({"S3_UPLOAD_PART_MIN_SIZE": "1"}))
            self._port = stack.enter_context(s3_server(folder / "s3", moto=True))
            self._proxy, self._faults = stack.enter_context(faulty_proxy(self._port))
            self._injector = Injector(plain(LOOKALIKE_CACHE=str(self._cache)))
            stack.callback(self._injector.close)
            self._stack = stack.pop_all()
        self._client = s3_client.open_client(parse(store_uri(self._port, "x")))

    def fresh(self, before: Store | None) -> Store:
        """See `Backend.fresh`."""
        self._made += 1
        prefix = f"{self._made}/store"
        for key in self._keys(before) if before else ():
            source = {"Bucket": BUCKET, "Key": key}
            target = f"{prefix}/{key.partition('/store/')[2]}"
            self._client.copy_object(Bucket=BUCKET, Key=target, CopySource=source)
        return open_store(store_uri(self._port, prefix), self._looked)

    def discard(self, store: Store) -> None:
        """See `Backend.discard`; what is still held would be executed in another trial."""
        self._faults.plan()
        self._faults.pass_on()
        for key, upload in self._uploads(store):
            self._client.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)
        for key in self._keys(store):
            self._client.delete_object(Bucket=BUCKET, Key=key)

    def run(
        self, scenario: Scenario, store: Store, fault: Fault, trace: Path | None = None
    ) -> Ended:
        """See `Backend.run`."""
        held = len(self._faults.held)
        kinds = (fault.kind,) if fault.nth else (*self.points,)
        self._faults.counts = lambda request: request.startswith(kinds)
        self._faults.plan(fault.action if fault.nth else "", fault.nth - 1)
        shutil.rmtree(self._cache / "files", ignore_errors=True)
        name = store_uri(self._proxy, parse(store.name).key)

        def started(process: int) -> None:
            self._faults.kill = lambda: os.kill(process, signal.SIGKILL)

        ended = self._injector.run(scenario.arguments(name), started=started)
        if held or not fault.action.startswith("kill"):
            self._faults.pass_on()
        if fault.kind in _CHANGES:  # progress is asked for as time passes
            assert self._faults.failed == 1, f"{fault}: there were {self._faults.counted} requests"
        if trace:
            changes = [one for one in self._faults.seen if self._faults.counts(one)]
            trace.write_text("".join(f"{line}\n" for line in changes))
        return ended

    def check_ended(self, fault: Fault, ended: Ended) -> None:
        """Killed; or done, as if nothing had been."""
        if fault.action.startswith("kill"):
            assert ended.status == -9, f"not killed: {ended}"
        else:
            assert ended.status == 0, f"status: {ended}"

    def some_points(self, operations: Counter[str]) -> list[tuple[str, str]]:
        """See `Backend.some_points`: methods take turns, as what goes wrong is alike for all."""
        actions = dict.fromkeys(action for some in self.points.values() for action in some)
        pairs = []
        for number, action in enumerate(actions):
            kinds = [kind for kind, some in self.points.items() if action in some]
            able = [kind for kind in kinds if operations[kind]]
            pairs.append((able[number % len(able)], action))
        return pairs

    def operations(self, trace: Path, store: Store) -> list[tuple[str, str]]:
        """See `Backend.operations`."""
        lines = [line.split(" ") for line in trace.read_text().splitlines()]
        return [(kind, unquote(urlsplit(url).path).partition("/store/")[2]) for kind, url in lines]

    def paths(self, store: Store) -> Iterable[str]:
        """See `Backend.paths`."""
        there = [*self._keys(store), *(f"{key} in parts" for key, _ in self._uploads(store))]
        return (key.partition("/store/")[2] for key in there)

    def close(self) -> None:
        """See `Backend.close`."""
        self._stack.close()

    def _keys(self, store: Store) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=f"{parse(store.name).key}/"
        )
        return [one["Key"] for page in pages for one in page.get("Contents", [])]

    def _uploads(self, store: Store) -> list[tuple[str, str]]:
        found = self._client.list_multipart_uploads(
            Bucket=BUCKET, Prefix=f"{parse(store.name).key}/"
        )
        return [(one["Key"], one["UploadId"]) for one in found.get("Uploads", [])]


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
