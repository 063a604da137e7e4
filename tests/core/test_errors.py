"""The one exception class: three sentences, a kind, and the same after pickling."""

import pickle

from headrace.core.errors import ErrorKind, HeadraceError, not_yet


def test_an_error_reads_as_three_sentences() -> None:
    error = HeadraceError("top_p is 3", rule="It must be at most 1", fix="Use 0.9", param="top_p")
    assert str(error) == "top_p is 3. It must be at most 1. Use 0.9."
    assert str(HeadraceError("Really?", fix="No")) == "Really? No."
    assert isinstance(error, ValueError) and error.kind is ErrorKind.INVALID_REQUEST


def test_an_error_survives_pickling() -> None:
    error = HeadraceError("a", rule="b", fix="c", param="d", kind=ErrorKind.OVERLOADED)
    again = pickle.loads(pickle.dumps(error))
    assert (again.what, again.rule, again.fix, again.param, again.kind) == ("a", "b", "c", "d", ErrorKind.OVERLOADED)
    assert str(again) == str(error)


def test_what_is_not_built_says_so() -> None:
    assert str(not_yet("LoRA", "Merge it")) == "LoRA is not supported yet. Merge it."
