"""Endpoints of looking around without a query."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from lookalike.errors import RequestError
from lookalike.search.searcher import Searcher
from lookalike.serve import browsing
from lookalike.serve.answers import groups_response, json_response, listing_response
from lookalike.serve.explorer import Explorer, described
from lookalike.serve.values import asked_count, asked_number, asked_parameters, asked_text

_PAGE = 60  # rows of a listing, unless told otherwise
_GROUPS = 20  # likewise, of which
_GROUP_SHOWN = 24  # rows at most are told
_SEEDS = 2**31 - 1
_LONGEST_NAME = 4096  # of a folder or a column


class ViewEndpoints:
    """A method for each path."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer, self._limits = explorer, explorer.limits

    async def browse(self, request: Request) -> Response:
        """Rows at random, or in their order, of all or of a folder."""
        texts = _texts(request, ("k", "where", "folder", "order", "seed", "offset"))
        k, offset = self._page_of(texts)
        seed = asked_count("seed", texts.get("seed", "0"), _SEEDS, 0)
        order = texts.get("order", "random")
        if order not in ("random", "stored"):
            raise RequestError(f"order: needs to be random or stored, got {order!r:.80}")
        where = self._where(texts)
        if "folder" in texts:
            where = browsing.in_folder(asked_text("folder", texts["folder"], _LONGEST_NAME), where)

        def find(now: Searcher) -> browsing.Listing:
            if order == "random":
                return browsing.random_rows(now, k, seed, where)
            return browsing.rows_in_order(now, k, offset, where)

        return await self._listed(find)

    async def duplicates(self, request: Request) -> Response:
        """Rows of which there are copies under other names."""
        texts = _texts(request, ("k", "where", "offset"))
        (k, offset), where = self._page_of(texts), self._where(texts)
        return await self._listed(lambda now: browsing.copies(now, k, offset, where))

    async def _listed(self, find: Callable[[Searcher], browsing.Listing]) -> Response:
        def read(now: Searcher) -> Response:
            listing = find(now)
            return listing_response(listing, described(now, listing.ids), now)

        return await self._explorer.read(read)

    async def near_copies(self, request: Request) -> Response:
        """Groups of rows that look the same, of a sample."""
        texts = _texts(request, ("k", "where", "offset", "threshold"))
        (k, offset), where = self._page_of(texts, _GROUPS), self._where(texts)
        threshold = asked_number("threshold", texts["threshold"]) if "threshold" in texts else None

        def read(now: Searcher) -> Response:
            found = self._explorer.near_copies(now, threshold, where)
            shown = [ids[:_GROUP_SHOWN] for ids in found.groups[offset : offset + k]]
            rows = described(now, np.concatenate([np.empty(0, np.int64), *shown]))
            return groups_response(found, offset, shown, rows, now)

        return await self._explorer.read(read)

    async def outliers(self, request: Request) -> Response:
        """Of a sample, the rows that are least like any other."""
        texts = _texts(request, ("k", "where", "seed"))
        (k, _), where = self._page_of(texts), self._where(texts)
        seed = asked_count("seed", texts.get("seed", "0"), _SEEDS, 0)

        def read(now: Searcher) -> Response:
            listing, scores = self._explorer.outliers(now, seed, where)
            found = described(now, listing.ids[:k], scores[:k])
            return listing_response(listing, found, now, scores=True)

        return await self._explorer.read(read)

    async def folders(self, request: Request) -> Response:
        """The folders of one level, with the number of rows below each."""
        texts = _texts(request, ("under",))
        under = asked_text("under", texts.get("under", ""), _LONGEST_NAME)
        return json_response(
            await self._explorer.read(
                lambda now: browsing.folders_under(self._explorer.folders(now), under)
            )
        )

    async def values(self, request: Request) -> Response:
        """The most frequent values of a column."""
        column = asked_text("column", _texts(request, ("column",)).get("column"), _LONGEST_NAME)
        return json_response(await self._explorer.read(lambda now: browsing.values_of(now, column)))

    def _page_of(self, texts: dict[str, str], usual: int = _PAGE) -> tuple[int, int]:
        k = asked_count("k", texts.get("k", str(usual)), self._limits.k)
        return k, asked_count("offset", texts.get("offset", "0"), 2**62, 0)

    def _where(self, texts: dict[str, str]) -> str | None:
        return asked_text("where", texts["where"], self._limits.where) if "where" in texts else None


def _texts(request: Request, names: tuple[str, ...]) -> dict[str, str]:
    """The parameters of a URL, of which these are known."""
    return asked_parameters(request.query_params.multi_items(), names)
