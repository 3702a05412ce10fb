"""Logs under attack."""

from __future__ import annotations

import io
import logging

import pytest

from parallel_infer.process.logs import MOST, PERIOD, Throttle, start_logging


@pytest.fixture
def written():
    """A logger with a throttle whose clock the test sets; and what was written."""
    lines, now = io.StringIO(), [0.0]
    output = logging.StreamHandler(lines)
    output.addFilter(Throttle(lambda: now[0]))
    logger = logging.getLogger("tests.security.throttled")
    logger.propagate = False
    logger.addHandler(output)
    yield logger, lambda: lines.getvalue().splitlines(), now
    logger.removeHandler(output)


def test_the_same_event_is_written_so_often_and_no_more(written):
    logger, lines, now = written
    for number in range(10_000):
        logger.warning("a stranger came: %d", number)
    assert len(lines()) == MOST
    assert lines()[0] == "a stranger came: 0"
    assert lines()[-1] == f"a stranger came: {MOST - 1} (more like this are not written for {PERIOD:.0f} s)"
    now[0] = PERIOD
    logger.warning("a stranger came: %d", 10_000)
    assert lines()[MOST:] == [f"a stranger came: 10000 ({10_000 - MOST} more like this were not written)"]


def test_other_events_are_not_held_back(written):
    logger, lines, _ = written
    for _ in range(10 * MOST):
        logger.warning("noise")
    logger.error("important")
    assert lines()[-1] == "important"


def test_few_events_are_left_as_they_are(written):
    logger, lines, now = written
    for second in range(100):
        now[0] = float(second)
        logger.warning("now and then")
    assert lines() == ["now and then"] * 100


def test_every_process_has_it(capsys):
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        start_logging("text", "info", "test")
        for _ in range(10 * MOST):
            logging.getLogger("some.module").warning("noise")
    finally:
        root.handlers = handlers
        root.setLevel(level)
    assert capsys.readouterr().err.count("noise") == MOST
