"""The text of metrics, by a strict reader of both formats that it must be."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_page import FACTS, HOSTILE

from lookalike.report.metrics import metrics_text

LABEL = r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"([a-z_]+)(?:\{{({LABEL}(?:,{LABEL})*)\}})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")


def read(text):
    """{(name, labels): value}, of text in which nothing is out of place."""
    assert text.endswith("# EOF\n")
    lines = text.split("\n")
    assert lines.pop() == ""
    assert lines.pop() == "# EOF"
    values, seen, family = {}, set(), ""
    for position, line in enumerate(lines):
        if line.startswith("# HELP "):
            family, meaning = line.removeprefix("# HELP ").split(" ", 1)
            assert family not in seen, "a family in two places"
            assert re.fullmatch(r"lookalike_[a-z_]+", family)
            assert not family.endswith(("_total", "_created", "_count", "_sum", "_bucket"))
            assert re.fullmatch(r"[A-Z0-9][^\\\"\n]*\.", meaning)
            assert lines[position + 1] == f"# TYPE {family} gauge"
            seen.add(family)
        elif not line.startswith("# TYPE "):
            name, labels, value = SAMPLE.fullmatch(line).groups()
            assert name == family
            assert (name, labels) not in values
            values[name, labels] = float(value)
        else:
            assert lines[position - 1].startswith(f"# HELP {family} ")
    return values


def test_what_is_known_is_said():
    values = read(metrics_text(FACTS))
    assert values["lookalike_files", 'status="rejected"'] == 15
    assert values["lookalike_files_listed", None] == 1234
    assert values["lookalike_rejected_files", 'reason="truncated"'] == 11
    assert values["lookalike_changes", 'change="added"'] == 47
    assert values["lookalike_recall_low_ratio", 'k="10"'] == 0.951
    assert values["lookalike_recall_high_ratio", 'k="10"'] == 0.971
    assert values["lookalike_stage_seconds", 'stage="scan"'] == 2
    assert values["lookalike_snapshot_bytes", 'kind="embedding"'] == 2048
    assert values["lookalike_list_imbalance_ratio", None] == 1.25
    assert values["lookalike_near_duplicates_ratio", None] == 0.02
    moment = values["lookalike_snapshot_created_timestamp_seconds", None]
    assert moment == 1767323045  # 2026-01-02T03:04:05Z
    (info,) = [labels for name, labels in values if name == "lookalike_snapshot_info"]
    assert 'snapshot="20260102-030405-abcd"' in info


def test_the_last_run_is_said_with_and_without_a_snapshot():
    run = {"exit_status": 3, "published": 0, "seconds": 1.5, "finished": 9e9, "succeeded": None}
    alone = read(metrics_text({}, run=run, labels={"store": "/s"}))
    assert alone == {
        ("lookalike_run_exit_status", 'store="/s"'): 3,
        ("lookalike_run_published", 'store="/s"'): 0,
        ("lookalike_run_duration_seconds", 'store="/s"'): 1.5,
        ("lookalike_run_finished_timestamp_seconds", 'store="/s"'): 9e9,
    }
    both = read(metrics_text(FACTS, run=run, labels={"store": "/s"}))
    assert alone.items() <= both.items()
    assert all(labels.startswith('store="/s"') for _, labels in both)


@pytest.mark.parametrize("missing", [*FACTS, None])
def test_parts_that_are_missing_are_left_out(missing):
    read(metrics_text({key: FACTS[key] for key in FACTS if key != missing} if missing else {}))


@given(st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=()), max_size=40))
def test_any_string_is_a_label_and_nothing_else(string):
    facts = {"name": string, "counts": {"rejected_by_reason": {string: 1}}}
    text = metrics_text(facts, labels={"store": string})
    text.encode("utf-8")
    assert len(read(text)) == len(read(metrics_text({"name": "n", **facts}, labels={"store": "s"})))


def test_the_reference_reader_agrees():
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    older = pytest.importorskip("prometheus_client.parser")
    for facts in (FACTS, {**FACTS, "name": 'a\\"b\nc'}):
        text = metrics_text(facts, run={"exit_status": 0}, labels={"store": "/s"})
        own = read(text)
        for reader in (parser, older):
            families = list(reader.text_string_to_metric_families(text))
            assert sum(len(family.samples) for family in families) == len(own)
            assert {family.type for family in families} == {"gauge"}
