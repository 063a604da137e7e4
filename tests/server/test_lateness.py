"""What the log says of an engine that makes no progress."""

from headrace.server.lateness import LatenessLog


def test_each_change_is_told_once(caplog):
    log = LatenessLog()
    for seconds in (0.0, 7.0, 8.0, 0.0, 0.0, 12.0):
        log.look(seconds)
    no_progress, goes_on, again = caplog.messages
    assert "no progress for 7 s" in no_progress and "/health answers 503" in no_progress
    assert "goes on" in goes_on
    assert "12 s" in again
