"""Pipelines that tell of which window, time and pane files are, embedded and not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that
from apache_beam.transforms import window
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, AfterWatermark
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.windowed_value import PaneInfoTiming

from lookalike.embed_spec import EmbedSpec
from lookalike.transforms.embed import EmbedImages

Event = tuple[str, float]  # a uri, and when
Place = tuple[float, float, float]  # time, and its window's begin and end

WINDOWS: dict[str, window.WindowFn] = {
    "fixed": window.FixedWindows(60),
    "sliding": window.SlidingWindows(120, 60),
    "sessions": window.Sessions(90),
}


def expected(name: str, events: Sequence[Event]) -> list[tuple[float, float, tuple[str, ...]]]:
    """By the definitions: (begin, end, sorted uris) of every window, once windows have merged."""
    if name == "sessions":
        groups: list[tuple[float, float, list[str]]] = []
        for uri, time in sorted(events, key=lambda event: event[1]):
            if groups and time < groups[-1][1]:
                begin, end, uris = groups.pop()
                groups.append((begin, max(end, time + 90), [*uris, uri]))
            else:
                groups.append((time, time + 90, [uri]))
        return sorted((begin, end, tuple(sorted(uris))) for begin, end, uris in groups)
    size = {"fixed": 60, "sliding": 120}[name]
    windows: dict[float, list[str]] = {}
    for uri, time in events:
        for begin in range(int(time // 60) * 60, int(time // 60) * 60 - size, -60):
            windows.setdefault(begin, []).append(uri)
    return sorted((begin, begin + size, tuple(sorted(uris))) for begin, uris in windows.items())


def check_windows(
    pipeline: beam.Pipeline, name: str, events: Sequence[Event], spec: EmbedSpec, batch: int
) -> None:
    """Expect of the files that they are grouped by window as they are without being embedded."""
    wanted = expected(name, events)

    def same(found: list[Any]) -> None:
        assert sorted(found) == wanted, f"{name}, batch {batch}: {sorted(found)} != {wanted}"

    for label, embed in (("Control", None), ("Embedded", EmbedImages(spec, batch))):
        uris = _windowed(pipeline, name, events, label)
        if embed is not None:
            records = (uris | embed)["embedded"]
            uris = records | f"Uris{label}" >> beam.Map(_uri)
        groups = (
            uris
            | f"One{label}" >> beam.WithKeys(_one_key)
            | f"Group{label}" >> beam.GroupByKey()
            | f"Tell{label}" >> beam.Map(_told)
        )
        assert_that(groups, same, label=f"Check{label}")


def check_places(
    pipeline: beam.Pipeline,
    name: str,
    events: Sequence[Event],
    spec: EmbedSpec,
    check: Callable[[list[Any]], None],
) -> None:
    """Give `check` the (key, uri, place, pane) of every file before and after it is embedded."""
    keyed = (
        _windowed(pipeline, name, events, "Events")
        | "Group" >> beam.WithKeys(_one_key)
        | "AsPanes" >> beam.GroupByKey()
        | "Apart" >> beam.FlatMap(_apart).with_output_types(tuple[int, str])
    )
    before = keyed | "Before" >> beam.Map(_place, "before")
    embedded = (keyed | EmbedImages(spec, 4))["embedded"]
    after = embedded | "Pair" >> beam.MapTuple(_pair) | "After" >> beam.Map(_place, "after")
    assert_that((before, after) | "Both" >> beam.Flatten(), check, reify_windows=False)


def check_stream(pipeline: beam.Pipeline, uris: Sequence[str], spec: EmbedSpec) -> None:
    """Expect panes of a stream, early, on time and late, to stay what they are."""
    first, second, late, next_one = uris[:4]
    stream = (
        TestStream()
        .advance_watermark_to(0)
        .add_elements([TimestampedValue(first, 1), TimestampedValue(second, 2)])
        .advance_processing_time(10)
        .advance_watermark_to(61)
        .add_elements([TimestampedValue(late, 5)])
        .advance_watermark_to(100)
        .add_elements([TimestampedValue(next_one, 99)])
        .advance_watermark_to_infinity()
    )
    trigger = AfterWatermark(early=AfterCount(1), late=AfterCount(1))
    keyed = (
        pipeline
        | stream
        | "Typed" >> beam.Map(_as_it_is).with_output_types(str)
        | beam.WindowInto(
            window.FixedWindows(60),
            trigger=trigger,
            accumulation_mode=AccumulationMode.DISCARDING,
            allowed_lateness=1000,
        )
        | "Group" >> beam.WithKeys(_one_key)
        | "AsPanes" >> beam.GroupByKey()
        | "Apart" >> beam.FlatMap(_apart).with_output_types(tuple[int, str])
    )
    embedded = (keyed | EmbedImages(spec, 3))["embedded"] | "Pair" >> beam.MapTuple(_pair)
    for name, pairs in (("Before", keyed), ("After", embedded)):
        found = pairs | name >> beam.Map(_place, name)
        assert_that(found, _StreamPanes({first, second, next_one}, late), label=f"Check{name}")


class _StreamPanes:
    """A matcher: of these files none is of a late pane, and one is."""

    def __init__(self, in_time: set[str], late: str) -> None:
        self._in_time, self._late = in_time, late

    def __call__(self, found: list[Any]) -> None:
        timings = {pair[1]: pane >> 2 for _, (pair, *_, pane, _) in found}
        assert timings.keys() == {*self._in_time, self._late}, found
        assert timings.pop(self._late) == PaneInfoTiming.LATE, found
        assert PaneInfoTiming.LATE not in timings.values(), found
        assert {end for _, (*_, end, _, _) in found} == {60.0, 120.0}, found


def _as_it_is(uri: str) -> str:
    return uri


def _windowed(
    pipeline: beam.Pipeline, name: str, events: Sequence[Event], label: str
) -> beam.PCollection[str]:
    return (
        pipeline
        | f"Create{label}" >> beam.Create(events)
        | f"Times{label}" >> beam.Map(_timed).with_output_types(str)
        | f"Windows{label}" >> beam.WindowInto(WINDOWS[name])
    )


def _timed(event: Event) -> TimestampedValue:
    return TimestampedValue(*event)


def _uri(record: dict[str, Any]) -> str:
    return record["uri"]


def _one_key(_: str) -> int:
    return 0


def _told(group: Any, of: Any = beam.DoFn.WindowParam) -> tuple[float, float, tuple[str, ...]]:
    return float(of.start), float(of.end), tuple(sorted(group[1]))


def _apart(group: tuple[int, Any]) -> list[tuple[int, str]]:
    return list(enumerate(sorted(group[1])))


def _pair(key: int, record: dict[str, Any]) -> tuple[int, str]:
    return key, record["uri"]


def _place(
    pair: tuple[int, str],
    when: str,
    time: Any = beam.DoFn.TimestampParam,
    of: Any = beam.DoFn.WindowParam,
    pane: Any = beam.DoFn.PaneInfoParam,
) -> tuple[str, Any]:
    return when, (pair, float(time), float(of.start), float(of.end), pane.encoded_byte, pane.index)
