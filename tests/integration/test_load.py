"""`guardline load` against a real worker: what it sends, what it reads back, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from tests.command import GUARDLINE, inheriting
from tests.site import Site, eventually

pytestmark = pytest.mark.timeout(180)


def test_a_load_is_answered_completely_and_ends_with_its_figures(site: Site) -> None:
    """Also its lines, its end by Ctrl-C, and records that nobody answers: one worker serves all of them."""
    site.create_topics()
    worker = site.worker()
    eventually(lambda: worker.has_partitions, "partitions")

    mix = ("--duplicates", "0.2", "--invalid", "0.1", "--tenant", "acme=3", "--tenant", "campus", "--language", "en")
    lines = site.command("load", "--rate", "200", "--count", "300", *mix, "--wait", "60", "--json").stdout.splitlines()
    *seconds, summary = [json.loads(line) for line in lines]
    assert summary["sent"] == summary["answered"] == 300
    assert (summary["missing"], summary["doubled"], summary["disorder"]) == (0, 0, 0)
    assert 10 < summary["dead_letters"] < 60
    assert summary["verdicts"] == 300 - summary["dead_letters"] == sum(summary["decisions"].values())
    assert 20 < summary["duplicates"] < 100
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"] <= summary["latency_ms"]["max"]
    assert seconds
    assert seconds[-1].keys() >= {"at_s", "sent_per_s", "answered_per_s", "waiting", "latency_ms"}

    outcome = site.outcome()
    assert len(outcome.by_position) == 300
    tenants = {document.get("tenant_id") for found in outcome.by_position.values() for document in found}
    assert tenants >= {"acme", "campus"}

    with inheriting():
        run = subprocess.Popen(
            [GUARDLINE, "load", "--rate", "20"],
            env={**os.environ, **site.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    with run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert "answered" in run.stdout.readline()
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 128 + signal.SIGINT
        said = run.stdout.read()
        assert run.stderr.read() == ""
    assert "missing 0, doubled 0, out of order 0" in said.partition("stopped; ")[2]

    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    said = site.command("load", "--rate", "100", "--count", "10", "--wait", "0.5", code=1).stdout
    assert "missing 10, doubled 0" in said


def test_a_load_is_refused_while_a_mapping_is_set(site: Site) -> None:
    said = site.command("load", code=2, GUARDLINE_EVENTS__MAPPING="mapping.yaml").stderr
    assert said.startswith("guardline: events.mapping is set")
