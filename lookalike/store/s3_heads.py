"""Sizes and versions of very many objects on S3: asked for by obstore, at a tenth of the CPU time.

It takes keys for paths, and tells less of what goes wrong. So only keys that are plain paths are
asked for here, once; of all that does not answer as it should, `s3.info` says what it is.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

from lookalike.errors import RequestError
from lookalike.store.s3_client import Settings, credentials, open_client
from lookalike.store.s3_uri import S3Name

try:
    import obstore
    from obstore import exceptions as failures
    from obstore.store import S3Store
except ImportError:
    obstore = None

_PLAIN = re.compile(
    r"(?:[A-Za-z0-9_\-=+,@][A-Za-z0-9_\-=+,@.]*/)*[A-Za-z0-9_\-=+,@][\w\-=+,@.]*", re.A
)
_TAKEN = frozenset(["region", "endpoint_override", "scheme"])
_FRESH = timedelta(minutes=5)


def quick_info(name: S3Name, settings: Settings) -> tuple[int, str] | None:
    """Size and version of an object; None where `s3.info` must tell, as of one that is absent.

    `settings` are what `environment` says.
    """
    if obstore is None or not _PLAIN.fullmatch(name.key):
        return None
    try:
        client = _client(name.bucket, name.options, name.user, settings)
        if client is None:
            return None
        found = obstore.head(client, name.key)
    except (failures.BaseError, OSError, RequestError):
        return None
    return int(found["size"]), str(int(found["last_modified"].timestamp()) * 10**9)


@lru_cache(maxsize=16)
def _client(bucket: str, options: str, user: str, settings: Settings) -> Any:
    """With what botocore's has: endpoint, region, credentials; None where that is not enough."""
    name = S3Name(bucket, "", options, user)
    if not name.settings().keys() <= _TAKEN:
        return None
    meta, found = open_client(name).meta, credentials(name)
    endpoint = str(meta.endpoint_url)

    def provider() -> dict[str, Any]:
        frozen = found.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(timezone.utc) + _FRESH,
        }

    return S3Store(
        bucket,
        endpoint=endpoint,
        region=meta.region_name,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": "10s",
            "timeout": "30s",
        },
        retry_config={"max_retries": 0},
        credential_provider=provider if found else None,
        skip_signature=not found,
    )
