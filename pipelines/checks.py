"""Is the request to index something sound? Every check here comes before anything is written.

All raise RequestError: what is wrong, with which value, and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from lookalike.errors import RequestError, UnreachableError
from lookalike.models.features import (
    Feature,
    blocks_of,
    described,
    model_fingerprint,
    preprocessing_fingerprint,
)
from lookalike.models.handles import BUILTINS
from lookalike.models.projection import Projection, stored_projection
from lookalike.records import SourceFile
from lookalike.sources.containers import is_table, is_tar
from lookalike.sources.contents import Contents, claimed_name
from lookalike.sources.globs import matches, segments
from lookalike.sources.kinds import advice_on
from lookalike.sources.sniff import SNIFF_BYTES, claims_image, sniff
from lookalike.sources.source import Source
from lookalike.store.folder import FolderStore
from lookalike.store.locks import why_not_writable
from lookalike.store.manifest import Manifest
from lookalike.store.object_uri import place_of
from lookalike.store.objects import Store
from lookalike.store.storage import is_remote, path_from_uri, plain_name


def check_store(place: Store, images: Sequence[str]) -> None:
    """Is a store's folder writable, a store or not there yet, and apart from the sources?

    Raises:
        RequestError: It is not.
    """
    for spec in images:
        _check_apart(place, spec)
    if not isinstance(place, FolderStore):
        return
    store = place.root
    if store.exists() and not store.is_dir():
        raise RequestError(f"{store}: the store must be a folder, and this is a file")
    if store.is_dir():
        known = {"CURRENT", "snapshots", "embeddings", "models", "templates", "index", "runs"}
        # a dot: what a killed run left of CURRENT, or what file managers leave
        names = sorted(path.name for path in store.iterdir() if not path.name.startswith("."))
        foreign = [name for name in names if name not in known]
        if foreign:
            raise RequestError(
                f"{store}: holds other things than a store ({foreign[0]}); name a new folder"
            )
    _check_writable(store)


def _check_apart(store: Store, spec: str) -> None:
    """A store that is listed lists itself, and what lies in a store is the store's own."""
    if is_remote(store.name):
        (where, own), (source_where, source) = place_of(store.name), place_of(spec)
    elif is_remote(spec):
        return
    else:
        where = source_where = ""
        own = os.path.realpath(store.name)
        source = os.path.realpath(os.fsdecode(path_from_uri(spec)))
    if where != source_where:
        return
    below = segments(own), segments(source)
    if matches(*below):
        raise RequestError(
            f"{store}: the store lies inside the source {plain_name(spec)} and would list itself; "
            "name a store elsewhere"
        )
    if below[1][: len(below[0])] == below[0]:
        raise RequestError(
            f"{store}: the source {plain_name(spec)} lies inside the store; name one elsewhere"
        )


def _check_writable(store: Path) -> None:
    if why := why_not_writable(store):
        what = "written" if store.is_dir() else "made"
        raise RequestError(f"{store}: the store cannot be {what}: {why}; name another place")


def check_reach(sources: Sequence[Source], is_known: Callable[[str], bool]) -> None:
    """Can every source be listed that no run before this one has listed?

    Raises:
        UnreachableError: It is there, and cannot be.
    """
    for source in sources:
        if source.kind in ("folder", "glob") and not is_known(source.spec):
            _check_root(source, next(source.files(lambda _: None), None))


def _check_root(source: Source, first: SourceFile | None) -> None:
    if first is not None and first.hides and first.uri == source.root:
        raise UnreachableError(f"{source.spec}: {first.problem}")


def check_images(sources: Sequence[Source]) -> None:
    """Is there anything to index at all; names suffice, and contents where no name says image.

    Raises:
        RequestError: There is not.
        UnreachableError: A source cannot be listed.
    """
    listed = containers = 0
    found = False
    for source in sources:
        for number, file in enumerate(source.files(lambda _: None)):
            listed += 1
            containers += is_tar(file.uri) or is_table(file.uri)
            if not number:
                _check_root(source, file)
            if file.problem or claims_image(claimed_name(file)):
                found = True
                break
    if found:
        return

    def files() -> Iterator[SourceFile]:
        return chain.from_iterable(source.files(lambda _: None) for source in sources)

    with Contents() as contents:
        shown = any(_shows_image(file, contents) for file in files())
    if not shown:
        specs = ", ".join(source.spec for source in sources)
        raise RequestError(
            f"{specs}: none of the {listed:,} files is an image, by name or by content"
            + (_in_containers(containers, sources[0].spec) if containers else "")
            + advice_on(source.spec for source in sources)
            if listed
            else f"{specs}: no files there; nothing to index"
        )


def _in_containers(count: int, spec: str) -> str:
    """What to do about tables and shards in a folder, which are opened where a glob names them."""
    what = "is a Parquet table or tar shard" if count == 1 else "are Parquet tables or tar shards"
    return (
        f"; {count:,} {what}: to index the images or uris in them, name them by a glob, such as "
        f"{spec.rstrip('/')}/**/*.parquet"
    )


def _shows_image(file: SourceFile, contents: Contents) -> bool:
    try:
        return sniff(contents.read(file, SNIFF_BYTES)) is not None
    except OSError:
        return True  # the run will say what is wrong with it


def check_vectors(store: Store, parent: Manifest | None) -> None:
    """A store of pictures takes no vectors made elsewhere."""
    if parent is not None and parent["features"]:
        handles = ", ".join(feature["handle"] for feature in parent["features"])
        raise RequestError(
            f"{store}: its vectors come from models ({handles}), and those made elsewhere do not "
            "compare with them; name a new store for --embeddings"
        )


def other_vectors(parent: Manifest | None, dim: int, metric: str) -> list[str]:
    """Lines that say why nothing of the published snapshot can be kept; none where it can be."""
    if parent is None or (parent["dim"], parent["metric"]) == (dim, metric):
        return []
    return [
        f"vectors have {dim} components and metric {metric}, those of {parent['name']} have "
        f"{parent['dim']} and {parent['metric']}; all are brought in anew, and {parent['name']} "
        "serves until that is done"
    ]


def check_reasons(given: frozenset[str] | None, known: Sequence[str]) -> None:
    """Rejects are tried again by reasons that there are."""
    for reason in sorted(given or ()):
        if reason not in known:
            names = ", ".join(filter(None, known))
            raise RequestError(f"--retry-rejects {reason}: no such reason; there are {names}")


def check_pictures(store: Store, parent: Manifest | None) -> None:
    """A store of vectors made elsewhere takes no pictures."""
    if parent is not None and not parent["features"]:
        raise RequestError(
            f"{store}: its vectors were made elsewhere (--embeddings), and those of models do not "
            "compare with them; name a new store for pictures"
        )


def other_models(
    parent: Manifest | None,
    features: Sequence[Feature],
    metric: str,
    projection: Projection | None = None,
    computed: bool = False,
) -> list[str]:
    """Lines that say why nothing of the published snapshot can be kept; none where it can be.

    `computed`: whether the vectors are computed from the stored ones.
    """
    if parent is None or computed:
        return []
    there = [Feature.from_json(one) for one in parent.get("features") or []]
    behind = stored_projection(parent)
    wanted = {
        "metric": (parent["metric"], metric),
        "choice of features": (described(there), described(features)),
        "projection": (_marked(behind), _marked(projection)),
        "model fingerprint": (
            parent["model_fingerprint"],
            model_fingerprint(features, metric, projection),
        ),
        "preprocessing fingerprint": (
            parent["preprocessing_fingerprint"],
            preprocessing_fingerprint(features),
        ),
    }
    changed = [
        f"the {what} is {asked}, that of {parent['name']} is {stored}"
        for what, (stored, asked) in wanted.items()
        if stored != asked
    ]
    made_by = {one.handle: one.fingerprint for one in there}
    for feature in features:
        scheme, _, name = feature.handle.partition(":")
        if scheme == "builtin" and made_by.get(feature.handle) not in (None, feature.fingerprint):
            changed.append(
                f"{feature.handle} is version {BUILTINS[name][1]} here, and another in "
                f"{parent['name']}, whose vectors do not compare with it"
            )
    if behind is not None and changed and blocks_of(there) == blocks_of(features):
        changed.append(
            "vectors behind a projection do not tell what they were before it; after lookalike "
            "rollback to a snapshot without one, a run computes others from its vectors"
        )
    if changed:
        changed.append(f"everything is embedded anew; {parent['name']} serves until that is done")
    return changed


def _marked(projection: Projection | None) -> str:
    """A projection to a person; its folder may have come to hold another."""
    return f"{projection.handle} ({projection.fingerprint[:12]})" if projection else "none"
