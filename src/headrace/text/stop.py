"""Stop strings: found in a stream of text as soon as their last character comes, however the text is cut up."""

from collections.abc import Iterator, Sequence


class StopChecker:
    """Watches one sequence's text. What could still become a stop string is held back, and nothing else is.

    The stop string that is complete first wins; of two that end together, the longer. Each character costs the same
    however long the stop strings are (Knuth, Morris and Pratt's matching).
    """

    def __init__(self, stop_strings: Sequence[str], include_stop_str_in_output: bool = False) -> None:
        self._matchers = [_Matcher(stop) for stop in sorted(set(stop_strings), key=len, reverse=True)]
        self._firsts = frozenset(stop[0] for stop in stop_strings)
        self._include = include_stop_str_in_output
        self._held = ""

    def replay(self, shown_text: str) -> str | None:
        """Take up a text that was fed before, elsewhere; the stop string that had ended it, if there was one.

        What is held back at its end depends only on its last characters, so a long text costs little.
        """
        for matcher in self._matchers:
            if matcher.stop in shown_text:
                return matcher.stop
        longest = len(self._matchers[0].stop)
        self.feed(shown_text[max(0, len(shown_text) - longest + 1) :])
        return None

    def feed(self, new_text: str) -> tuple[str, str | None]:
        """(the text that may be shown now, the stop string that ended it or None). Not to be fed after a match."""
        if not self._held and self._firsts.isdisjoint(new_text):
            return new_text, None
        text = self._held + new_text
        for end, stop in self._matches(new_text):
            shown = end + len(self._held) - (0 if self._include else len(stop))
            self._held = ""
            return text[:shown], stop
        keep = max(matcher.matched for matcher in self._matchers)
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut], None

    def _matches(self, new_text: str) -> Iterator[tuple[int, str]]:
        """(how much of `new_text` was read, the stop string that this completed)."""
        for end, character in enumerate(new_text, start=1):
            done = [matcher.stop for matcher in self._matchers if matcher.advance(character)]
            if done:
                yield end, done[0]

    def flush(self) -> str:
        """What was held back, at the end of a sequence that no stop string ended."""
        held, self._held = self._held, ""
        return held


class _Matcher:
    """How much of one stop string the text so far ends with."""

    __slots__ = ("_fallback", "matched", "stop")

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.matched = 0
        self._fallback = _fallbacks(stop)

    def advance(self, character: str) -> bool:
        """Read one character; whether the stop string is now complete."""
        matched = self.matched
        while matched and self.stop[matched] != character:
            matched = self._fallback[matched - 1]
        self.matched = matched + (self.stop[matched] == character)
        return self.matched == len(self.stop)


def _fallbacks(stop: str) -> list[int]:
    """For each prefix of `stop`, the length of the longest shorter prefix that it ends with."""
    table, matched = [0], 0
    for character in stop[1:]:
        while matched and stop[matched] != character:
            matched = table[matched - 1]
        matched += stop[matched] == character
        table.append(matched)
    return table
