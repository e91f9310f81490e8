"""Endpoints of queries: what is asked is read by `asking`, and answered by the explorer."""

from __future__ import annotations

import asyncio
from functools import partial

import python_multipart as python_multipart  # by which Starlette reads forms, once one comes
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from lookalike.errors import RequestError
from lookalike.serve.answers import answer_response
from lookalike.serve.asking import asked_json, asked_texts
from lookalike.serve.explorer import Explorer
from lookalike.serve.limits import RefusedError
from lookalike.serve.query import Asked
from lookalike.serve.values import asked_id

_WHOLE = 4  # pictures that were sent, in memory at the same time; others wait on the disk
_FIELDS, _FIELD_BYTES = 100, 16 << 10  # of a form


class QueryEndpoints:
    """A method for each path."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer, self._limits = explorer, explorer.limits
        self._reading = asyncio.Semaphore(_WHOLE)

    async def search(self, request: Request) -> Response:
        """The neighbours of pictures and rows, all of them one query."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            asked = await self._of_form(request)
        elif kind == "application/json":
            asked = asked_json(await request.body(), self._limits)
        else:
            raise RefusedError(
                415, "the body needs to be application/json, or multipart/form-data with pictures"
            )
        return await self._answer(asked)

    async def _of_form(self, request: Request) -> Asked:
        texts: list[tuple[str, str]] = []
        most = 2 * self._limits.pictures
        async with request.form(
            max_files=most, max_fields=_FIELDS, max_part_size=_FIELD_BYTES
        ) as form:
            for name, value in form.multi_items():
                if not isinstance(value, UploadFile):
                    texts.append((name, value))
                    continue
                if name not in ("image", "unlike_image"):
                    raise RequestError(
                        f"{name!r:.80}: pictures are sent as `image`, or `unlike_image`"
                    )
                async with self._reading:
                    put = partial(self._explorer.uploads.put, await value.read())
                    digest = await self._explorer.in_thread(put)
                texts.append(("picture" if name == "image" else "unlike", digest))
        return asked_texts(texts, self._limits)

    async def neighbours(self, request: Request) -> Response:
        """The neighbours of a row, without itself unless they are asked for so."""
        pairs = request.query_params.multi_items()
        if not any(name == "exclude_self" for name, _ in pairs):
            pairs.append(("exclude_self", "true"))
        own = str(asked_id("id", request.path_params["id"]))
        return await self._answer(asked_texts([("id", own), *pairs], self._limits))

    async def _answer(self, asked: Asked) -> Response:
        asked = asked.check(self._limits)
        more = {
            "query": {
                "id": asked.ids,
                "uri": asked.uris,
                "picture": asked.pictures,
                "unlike": [*asked.unlike_ids, *asked.unlike_pictures],
            }
        }
        return await self._explorer.search(
            asked, lambda found, now: answer_response(found, now, asked.format, more)
        )
