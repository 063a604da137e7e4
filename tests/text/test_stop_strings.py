"""A stop string is found wherever the pieces of text are cut, and nothing is held back without need."""

import itertools
import time

from hypothesis import given
from hypothesis import strategies as st

from headrace.text.stop import StopChecker, StopStrings

LETTERS = st.text(alphabet="ab.", max_size=30)
STOPS = st.lists(st.text(alphabet="ab.", min_size=1, max_size=5), min_size=1, max_size=4)


def run(pieces, stops, include=False):
    checker = StopChecker(StopStrings(stops), include)
    shown = ""
    for piece in pieces:
        text, stop = checker.feed(piece)
        shown += text
        if stop is not None:
            return shown, stop
    return shown + checker.flush(), None


def expected(text, stops, include):
    """By looking at the whole text: the stop string that ends first, the longest of those."""
    ends = [(text.find(stop) + len(stop), -len(stop), stop) for stop in stops if stop in text]
    if not ends:
        return text, None
    end, _, stop = min(ends)
    return text[: end if include else end - len(stop)], stop


@given(pieces=st.lists(LETTERS, max_size=12), stops=STOPS, include=st.booleans())
def test_the_cut_of_the_pieces_makes_no_difference(pieces, stops, include):
    assert run(pieces, stops, include) == expected("".join(pieces), stops, include)


@given(pieces=st.lists(LETTERS, max_size=12), stops=STOPS)
def test_only_what_may_become_a_stop_string_is_held_back(pieces, stops):
    checker, fed, shown = StopChecker(StopStrings(stops)), "", ""
    for piece in pieces:
        fed += piece
        text, stop = checker.feed(piece)
        if stop is not None:
            return
        shown += text
        held = fed[len(shown) :]
        longest = max((n for s in stops for n in range(len(s)) if fed.endswith(s[:n])), default=0)
        assert held == fed[len(fed) - longest :]


def test_a_stop_string_over_three_pieces():
    checker = StopChecker(StopStrings(["\n\nUser:"]))
    assert checker.feed("Yes.\n") == ("Yes.", None)
    assert checker.feed("\nUs") == ("", None)
    assert checker.feed("er: hi") == ("", "\n\nUser:")


def test_a_beginning_that_comes_to_nothing_is_let_out():
    checker = StopChecker(StopStrings(["STOP"]))
    assert checker.feed("a ST") == ("a ", None)
    assert checker.feed("ART") == ("START", None)
    assert checker.feed(" S") == (" ", None)
    assert checker.flush() == "S"


def test_including_the_stop_string_keeps_it_and_drops_what_follows():
    assert run(["so EN", "D. More"], ["END."], include=True) == ("so END.", "END.")


def test_many_stop_strings_cost_as_much_as_one():
    def seconds(stops):
        checker, start = StopChecker(StopStrings(stops)), time.process_time()
        for _ in range(2_000):
            assert checker.feed("ab")[1] is None
        return time.process_time() - start

    many = ["ab" * 20 + "".join(end) + "c" for end in itertools.product("ab", repeat=9)]
    assert min(seconds(many) for _ in range(3)) < 20 * min(seconds(many[:1]) for _ in range(3))
