"""What the server did and holds, as Prometheus reads it."""

from __future__ import annotations

import mmap
from collections import Counter, defaultdict
from threading import Lock

from lookalike.report.metrics import family_text
from lookalike.serve.explorer import Explorer


class Metrics:
    """Counts of requests; threads may share one.

    Attributes:
        under_way: Requests that are being answered now, and count against the limit.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, float] = defaultdict(float)
        self.under_way = 0

    def count(self, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        with self._lock:
            self._counts[route, status] += 1
            self._seconds[route] += seconds

    def text(self, explorer: Explorer) -> str:
        """All of them now."""
        with self._lock:
            counts, seconds = dict(self._counts), dict(self._seconds)
        now, shown = explorer.searcher, explorer.thumbnails
        return "".join(
            [
                family_text(
                    "lookalike_serve_requests_total",
                    "Requests by route and status.",
                    [
                        ({"route": route, "status": str(status)}, float(count))
                        for (route, status), count in sorted(counts.items())
                    ],
                    "counter",
                ),
                family_text(
                    "lookalike_serve_request_seconds_total",
                    "Seconds that requests took, by route.",
                    [({"route": route}, value) for route, value in sorted(seconds.items())],
                    "counter",
                ),
                *(
                    family_text(f"lookalike_serve_{name}", meaning, [(labels, float(value))], kind)
                    for name, meaning, labels, value, kind in (
                        (
                            "requests_under_way",
                            "Requests being answered.",
                            {},
                            self.under_way,
                            "gauge",
                        ),
                        (
                            "snapshot_info",
                            "The snapshot that is open.",
                            {"snapshot": str(now.manifest["name"])},
                            1,
                            "gauge",
                        ),
                        ("vectors", "Vectors that searches find.", {}, now.count, "gauge"),
                        (
                            "refreshes_total",
                            "Times that another snapshot was gone to.",
                            {},
                            explorer.refreshed,
                            "counter",
                        ),
                        (
                            "stuck",
                            "1 where the published snapshot cannot be opened.",
                            {},
                            bool(explorer.problem),
                            "gauge",
                        ),
                        ("thumbnails_made_total", "Thumbnails made.", {}, shown.made, "counter"),
                        (
                            "thumbnails_kept_total",
                            "Thumbnails that were there already.",
                            {},
                            shown.kept,
                            "counter",
                        ),
                        (
                            "thumbnail_bytes",
                            "Bytes of thumbnails in memory.",
                            {},
                            shown.size,
                            "gauge",
                        ),
                        (
                            "upload_bytes",
                            "Bytes of pictures that were uploaded and are kept.",
                            {},
                            explorer.uploads.size,
                            "gauge",
                        ),
                        (
                            "resident_bytes",
                            "Memory of the serving process.",
                            {},
                            resident_bytes(),
                            "gauge",
                        ),
                    )
                ),
            ]
        )


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0
