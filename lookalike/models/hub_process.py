"""The process that fetches models, started by `hub`, which ends it when it hangs."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lookalike.errors import RequestError, one_line
from lookalike.models import child, downloads, onnx_files


def fetch(handle: str, scratch: str, timeout_s: float) -> str:
    """Fetch what a handle names: through kagglehub, as the file it is, or through tensorflow_hub.

    Returns:
        Its folder, or its address on other storage.

    Raises:
        RequestError: It cannot be had; the message gives the cause.
    """
    with downloads.in_words(handle, timeout_s):
        if handle.startswith("kaggle:"):
            return _from_kaggle(handle, timeout_s)
        if urlsplit(handle).path.lower().endswith(".onnx"):
            folder = Path(scratch) / "file"
            folder.mkdir()
            downloads.fetch(handle, folder / onnx_files.MODEL, timeout_s=timeout_s)
            return str(folder)
        try:
            from lookalike.models import tf_hub
        except ImportError as error:  # of pkg_resources, which newer setuptools lack
            raise RequestError(
                f"tensorflow_hub cannot be imported: {one_line(error)} (pip install "
                "'setuptools<82' 'tensorflow-hub>=0.16.1,<0.17' tf-keras, as lookalike requires)"
            ) from error
        return tf_hub.resolve(handle, Path(scratch), timeout_s)


def _from_kaggle(handle: str, timeout_s: float) -> str:
    """The folder that kagglehub keeps a model in (`KAGGLEHUB_CACHE`)."""
    import kagglehub
    import requests

    send = requests.adapters.HTTPAdapter.send

    def send_in_time(self: Any, request: Any, **more: Any) -> Any:
        return send(self, request, **{**more, "timeout": more.get("timeout") or timeout_s})

    # Its client sets no limit itself, and so waits for ever.
    setattr(requests.adapters.HTTPAdapter, "send", send_in_time)  # noqa: B010
    try:
        return str(kagglehub.model_download(handle.removeprefix("kaggle:")))
    except requests.exceptions.Timeout as error:
        raise TimeoutError from error
    except Exception as error:  # it has a class of its own for each thing that can be wrong
        raise RequestError(f"cannot download {handle}: {one_line(error)}") from error


def main(request: dict[str, Any]) -> str:
    """Fetch what `hub` asks for."""
    socket.setdefaulttimeout(request["timeout_s"])
    return fetch(**request)


if __name__ == "__main__":
    child.serve(main)
