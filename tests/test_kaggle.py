"""Models of Kaggle, through kagglehub and its test service, which is a server on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from lookalike.models import hub
from lookalike.models.handles import folder_fingerprint, resolve
from tests.web_server import Server, fails, running, write_model

KAGGLE = "http://localhost:7777/api/v1/models.ModelApiService"
HANDLE = "kaggle:google/mobilenet-v2/tensorFlow2/035-128"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "a model")


@pytest.fixture
def kaggle(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The test service that kagglehub knows of, reached through our server as a proxy."""
    pytest.importorskip("kagglehub")
    for name in ("TFHUB_CACHE_DIR", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))  # of a person who has not signed in

    def answers(what: object) -> Callable[[BaseHTTPRequestHandler], None]:
        def answer(request: BaseHTTPRequestHandler) -> None:
            data = json.dumps(what).encode()
            request.send_response(200)
            request.send_header("Content-Type", "application/json")
            request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data)

        return answer

    def sends_file(request: BaseHTTPRequestHandler) -> None:
        asked = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        data = (model / asked["path"]).read_bytes()
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    files = [str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()]
    by_request = {
        f"{KAGGLE}/GetModelInstance": answers({"versionNumber": 3}),
        f"{KAGGLE}/ListModelInstanceVersionFiles": answers({"files": [{"name": n} for n in files]}),
        f"{KAGGLE}/DownloadModelInstanceVersion": sends_file,
    }
    with running() as server:
        server.answers |= by_request
        monkeypatch.setenv("http_proxy", server.address)
        yield server


@pytest.mark.slow
def test_a_model_of_kaggle(kaggle: Server, model: Path, tmp_path: Path) -> None:
    found = resolve(HANDLE, tmp_path / "work")
    assert found.fingerprint == folder_fingerprint(model)
    assert found.folder == tmp_path / "kagglehub/models/google/mobilenet-v2/tensorFlow2/035-128/3"
    asked = len(kaggle.asked)
    assert resolve(f"{HANDLE}/3", tmp_path / "work").folder == found.folder
    assert len(kaggle.asked) == asked  # it is in kagglehub's cache


def test_models_of_kaggle_that_cannot_be_had(
    kaggle: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "TIMEOUT_S", 0.3)
    work = tmp_path / "work"
    work.mkdir()
    kaggle.sends(f"{KAGGLE}/GetModelInstance", b"no such model", status=404)
    fails(HANDLE, work, f"cannot download {HANDLE}: 404 Client Error")
    kaggle.answers[f"{KAGGLE}/GetModelInstance"] = lambda request: time.sleep(1)
    fails(HANDLE, work, "Kaggle did not answer within 0.3 s")
    files = {"files": [{"name": "model.h5"}]}
    kaggle.sends(f"{KAGGLE}/ListModelInstanceVersionFiles", json.dumps(files).encode())
    kaggle.sends(f"{KAGGLE}/DownloadModelInstanceVersion", b"weights")
    fails(f"{HANDLE}/4", work, f"what {HANDLE}/4 sent has no saved_model.pb .* holds model.h5")
    for handle in ("kaggle:google/mobilenet-v2", f"{HANDLE}/latest", "kaggle:"):
        fails(handle, work, "is not kaggle:owner/model/framework/variation or")


def test_kagglehub_is_asked_for_where_it_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    (tmp_path / "work").mkdir()
    fails(HANDLE, tmp_path / "work", r"needs kagglehub: pip install 'lookalike\[kaggle\]'")
