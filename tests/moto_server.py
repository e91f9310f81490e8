"""moto's server, on 127.0.0.1 and the port that is given; its conditional puts count as S3's do.

moto looks whether there is an object and then puts its own, so two threads that find none both put
one: here one writes after the other.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from moto.s3.responses import S3Response
from moto.server import main

_turn = threading.Lock()


def one_after_the_other(method: Any) -> Any:
    def answer(*args: Any) -> Any:
        with _turn:
            return method(*args)

    return answer


if __name__ == "__main__":
    for name in ("_key_response_put", "_key_response_post", "_key_response_delete"):
        setattr(S3Response, name, one_after_the_other(getattr(S3Response, name)))
    main(["-H", "127.0.0.1", "-p", sys.argv[1]])
