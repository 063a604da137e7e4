"""Stop strings: found in a stream of text as soon as their last character comes, however the text is cut up."""

from collections import deque
from collections.abc import Sequence


class StopStrings:
    """A request's stop strings, as Aho and Corasick's automaton: a character costs the same however many there are.

    A state is the longest beginning of a stop string that the text ends with; 0 is none. Nothing in it changes, so all
    sequences of a request share it.
    """

    def __init__(self, stop_strings: Sequence[str]) -> None:
        self.firsts = frozenset(stop[0] for stop in stop_strings)
        self.lengths = [0]
        self.found: list[str | None] = [None]
        self._next: list[dict[str, int]] = [{}]
        for stop in stop_strings:
            self._insert(stop)
        self._fallback = [0] * len(self._next)
        self._link()

    def __bool__(self) -> bool:
        return bool(self.firsts)

    def advance(self, state: int, character: str) -> int:
        """The state after one more character."""
        while state and character not in self._next[state]:
            state = self._fallback[state]
        return self._next[state].get(character, 0)

    def find(self, text: str, state: int = 0) -> tuple[int, int]:
        """(how much of `text` was read, the state): up to the first stop string that is complete, or all of it."""
        for end, character in enumerate(text, start=1):
            state = self.advance(state, character)
            if self.found[state] is not None:
                return end, state
        return len(text), state

    def _insert(self, stop: str) -> None:
        state = 0
        for length, character in enumerate(stop, start=1):
            if character not in self._next[state]:
                self._next[state][character] = len(self._next)
                self._next.append({})
                self.lengths.append(length)
                self.found.append(None)
            state = self._next[state][character]
        self.found[state] = stop

    def _link(self) -> None:
        """A state falls back to its longest proper end that is a state too, and finds what that one finds."""
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for character, after in self._next[state].items():
                self._fallback[after] = self.advance(self._fallback[state], character)
                self.found[after] = self.found[after] or self.found[self._fallback[after]]
                waiting.append(after)


NO_STOP_STRINGS = StopStrings(())


class StopChecker:
    """Watches one sequence's text. What could still become a stop string is held back, and nothing else is.

    The stop string that is complete first wins; of two that end together, the longer.
    """

    def __init__(self, stop_strings: StopStrings, include_stop_str_in_output: bool = False) -> None:
        self._stops = stop_strings
        self._include = include_stop_str_in_output
        self._state = 0
        self._held = ""

    def replay(self, shown_text: str) -> str | None:
        """Take up a text that was fed before, elsewhere; the stop string that had ended it, if there was one."""
        _, stop = self.feed(shown_text)
        return stop

    def feed(self, new_text: str) -> tuple[str, str | None]:
        """(the text that may be shown now, the stop string that ended it or None). Not to be fed after a match."""
        stops = self._stops
        if not self._held and stops.firsts.isdisjoint(new_text):
            return new_text, None
        text = self._held + new_text
        end, self._state = stops.find(new_text, self._state)
        if (stop := stops.found[self._state]) is not None:
            shown = end + len(self._held) - (0 if self._include else len(stop))
            self._held = ""
            return text[:shown], stop
        cut = len(text) - stops.lengths[self._state]
        self._held = text[cut:]
        return text[:cut], None

    def flush(self) -> str:
        """What was held back, at the end of a sequence that no stop string ended."""
        held, self._held = self._held, ""
        return held
