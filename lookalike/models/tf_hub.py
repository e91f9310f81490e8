"""`tensorflow_hub.resolve`, fed with archives that were fetched and checked by us.

It speaks the TF-Hub protocol and keeps the cache, but waits for a server for ever, believes a
download that was cut short between two members, sets no limit to what an archive unpacks to, and
cannot unpack one that lists files without their folders. So its resolvers are given their servers'
answers by `downloads`, and whole archives by `archives`.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from lookalike.errors import RequestError, one_line
from lookalike.models import archives, downloads
from lookalike.models.quiet_tf import tf

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", ".*pkg_resources is deprecated.*")
    import tensorflow_hub
    from tensorflow_hub import compressed_module_resolver, registry, resolver
    from tensorflow_hub import uncompressed_module_resolver as uncompressed

_LOCK_S = 30
"""How long the holder of a lock, on another machine, may write nothing before it is given up."""


def resolve(handle: str, scratch: Path, timeout_s: float) -> str:
    """Find or fetch a model as TF-Hub's users do, in the cache of `TFHUB_CACHE_DIR`.

    Args:
        handle: An address: of a model by the TF-Hub protocol, or of an archive.
        scratch: A folder for the archive.
        timeout_s: Longest silence of the server, in seconds.

    Returns:
        The folder with what the archive held; with `TFHUB_MODEL_LOAD_FORMAT=UNCOMPRESSED`, the
        address of the model on Google Cloud Storage.

    Raises:
        RequestError: It cannot be unpacked.
        OSError, http.client.HTTPException, ValueError: As `downloads.fetch`.
    """
    by_location = uncompressed.HttpUncompressedFileResolver()
    by_location.path_resolver = str  # whether it can be reached is seen when it is copied
    registry.resolver.add_implementation(by_location)
    with ExitStack() as opened:  # hub closes nothing
        checked = _CheckedResolver(handle, scratch, timeout_s, opened)
        registry.resolver.add_implementation(checked)
        try:
            return str(tensorflow_hub.resolve(handle))
        except tf.errors.ResourceExhaustedError as error:
            raise RuntimeError(one_line(error)) from error
        except tf.errors.OpError as error:
            why = one_line(error)
            raise RequestError(f"tensorflow_hub cannot unpack {handle}: {why}") from error


class _CheckedResolver(compressed_module_resolver.HttpCompressedFileResolver):  # type: ignore[misc]
    """TF-Hub's own resolver of compressed models, which sees nothing but checked archives."""

    def __init__(self, handle: str, scratch: Path, timeout_s: float, opened: ExitStack) -> None:
        super().__init__()
        self._opened = opened
        self._handle = handle
        self._scratch = scratch
        self._timeout_s = timeout_s

    def _append_compressed_format_query(self, handle: str) -> str:
        # A file's own address may be signed: leave it be.
        if urlsplit(handle).path.lower().endswith(archives.SUFFIXES):
            return handle
        return str(super()._append_compressed_format_query(handle))

    def _call_urlopen(self, request: Any) -> IO[bytes]:
        """The answer of a server; hub would open the address itself."""
        archive = self._scratch / "archive"
        downloads.fetch(
            request if isinstance(request, str) else request.full_url,
            archive,
            timeout_s=self._timeout_s,
            context=self._context,
            progress=resolver.DownloadManager(self._handle)._log_progress,
        )
        try:
            checked = archives.check(archive, self._scratch / "plain")
            return self._opened.enter_context(open(checked, "rb"))
        except RequestError as error:
            what = f"what {self._handle} sent"
            raise RequestError(f"cannot use {what} as a model: {error}") from error

    def _lock_file_timeout_sec(self) -> int:
        return _LOCK_S
