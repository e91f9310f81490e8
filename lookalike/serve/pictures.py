"""Pictures become queries: the decoder process of indexing decodes, the store's models embed.

What was embedded lately is kept, so that other weights or filters cost a search and no more.
"""

from __future__ import annotations

from threading import Lock

import numpy as np

from lookalike.embedding import embed_files
from lookalike.errors import RequestError
from lookalike.images.cropping import Crop
from lookalike.images.decoding import Decoder
from lookalike.images.thumbnails import find_soon
from lookalike.models.embedder import Embedder
from lookalike.outcomes import Embedded, Failed
from lookalike.records import SourceFile
from lookalike.search.queries import Queries
from lookalike.search.searcher import Searcher
from lookalike.serve.decoders import Decoders
from lookalike.serve.limits import Limits, RefusedError
from lookalike.serve.uploads import Uploads
from lookalike.sources.locating import Locator
from lookalike.store.recent import Recent

_KEPT = 1000  # vectors

Key = tuple[str, str, str]


class Pictures:
    """Embeds pictures for a searcher; threads may share one."""

    def __init__(self, uploads: Uploads, limits: Limits, decoders: int) -> None:
        """Embed what `uploads` keeps, and files of the store, by so many decoders at a time."""
        self._uploads, self._limits, self._count = uploads, limits, decoders
        self._lock = Lock()  # of what follows
        self._decoders: tuple[Embedder, Decoders] | None = None
        self._known: Recent[Key, Embedded] = Recent(_KEPT)

    def uploaded(self, now: Searcher, digests: tuple[str, ...], crop: Crop | None) -> Queries:
        """Pictures that were uploaded, or that part of each.

        Raises:
            RequestError: The store has no models.
            RefusedError: One is not kept any more, or is no picture that can be used.
        """
        found = []
        for digest in digests:
            path = self._uploads.path(digest)
            file = SourceFile(str(path), path.stat().st_size, digest)
            found.append(self._embedded(now, digest, file, crop, f"the picture {digest[:12]}…"))
        return _queries(now, [f"picture:{digest[:16]}" for digest in digests], None, found)

    def stored(self, now: Searcher, uris: list[str], crop: Crop) -> Queries:
        """Parts of pictures of the store, whose files are read anew.

        Raises:
            RequestError: The store has no models.
            RefusedError: A file is not there any more, or the crop leaves it.
        """
        found = []
        for uri in uris:
            file = find_soon(Locator(read_before=True), uri)
            if file.problem:
                raise RefusedError(422, f"{uri}: cannot be read for a part of it: {file.problem}")
            found.append(self._embedded(now, f"{uri}\0{file.version}", file, crop, uri))
        return _queries(now, uris, uris, found)

    def _embedded(
        self, now: Searcher, name: str, file: SourceFile, crop: Crop | None, shown: str
    ) -> Embedded:
        key = (str(now.manifest["model_fingerprint"]), name, str(crop or ""))
        with self._lock:
            known = self._known.get(key)
        if known is None:
            embedder = now.embedder
            with self._decoders_of(embedder).one() as decoder:
                decoder.crop = crop
                [outcome] = embed_files([file], embedder, decoder, once=False)
            if not isinstance(outcome, Embedded):
                assert isinstance(outcome, Failed)
                raise _refused(shown, outcome)
            known = outcome
            with self._lock:
                self._known.put(key, known)
        return known

    def _decoders_of(self, embedder: Embedder) -> Decoders:
        with self._lock:
            if self._decoders is None or self._decoders[0] is not embedder:
                if self._decoders:
                    self._decoders[1].close()
                limits = self._limits.image
                self._decoders = (
                    embedder,
                    Decoders(
                        lambda: Decoder(embedder.sizes, limits, embedder.functions), self._count
                    ),
                )
            return self._decoders[1]

    def close(self) -> None:
        """End the decoders."""
        with self._lock:
            if self._decoders:
                self._decoders[1].kill()


def check_models(now: Searcher) -> None:
    """Whether pictures can be asked for.

    Raises:
        RequestError: The store is of vectors that were made elsewhere.
    """
    if not now.manifest.get("features"):
        raise RequestError(
            "this store's vectors were made elsewhere, without models, so it cannot be searched "
            "with pictures or parts of them; name a row of it: id or uri"
        )


def _queries(
    now: Searcher, names: list[str], uris: list[str] | None, found: list[Embedded]
) -> Queries:
    vectors = [one.vector for one in found]
    stacked = np.stack(vectors) if vectors else np.empty((0, now.dim), np.float32)
    return Queries(
        names,
        stacked,
        list(uris) if uris else [None] * len(names),
        [one.sha256 for one in found],
    )


def _refused(shown: str, outcome: Failed) -> RefusedError:
    reason = "not an image" if outcome.status == "ignored" else outcome.reason
    return RefusedError(422, f"{shown}: {': '.join(filter(None, (reason, outcome.detail)))}")
