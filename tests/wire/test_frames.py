"""Frames come out as they went in, wherever the stream between is cut and whatever the kernel takes at once."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.wire.frames import RECEIVE_BYTES, FrameSocket

PAYLOADS = st.lists(st.binary(max_size=300), max_size=20)


@pytest.fixture
def pair():
    ends = [FrameSocket(end) for end in socket.socketpair(socket.AF_UNIX)]
    yield ends
    for end in ends:
        end.close()


@given(payloads=PAYLOADS, cuts=st.lists(st.integers(1, 700)))
def test_frames_survive_any_cut(payloads, cuts):
    stream = b"".join(struct.pack("<I", len(payload)) + payload for payload in payloads)
    raw, end = socket.socketpair(socket.AF_UNIX)
    with raw:
        frames, taken = FrameSocket(end), []
        for size in [*cuts, len(stream)]:
            piece, stream = stream[:size], stream[size:]
            raw.sendall(piece)
            frames.receive()
            taken += [bytes(frame) for frame in frames.frames()]
        assert taken == payloads
        assert not frames.has_frame and not frames.ended
        frames.close()


@given(payloads=PAYLOADS)
def test_what_is_sent_is_such_a_stream(payloads):
    raw, end = socket.socketpair(socket.AF_UNIX)
    with raw:
        frames = FrameSocket(end)
        assert all(frames.send(payload) for payload in payloads)
        frames.close()
        with raw.makefile("rb") as stream:
            assert stream.read() == b"".join(struct.pack("<I", len(payload)) + payload for payload in payloads)


@given(sizes=st.lists(st.sampled_from([0, 1, 5_000, 400_000, 3_000_000]), max_size=8))
def test_what_the_kernel_does_not_take_waits_in_order(sizes):
    sender, receiver = (FrameSocket(end) for end in socket.socketpair(socket.AF_UNIX))
    payloads = [bytes([number]) * size for number, size in enumerate(sizes)]
    assert all(sender.send(payload) for payload in payloads)
    taken = []
    while len(taken) < len(payloads):
        assert sender.flush()
        receiver.receive()
        taken += [bytes(frame) for frame in receiver.frames()]
    assert taken == payloads
    assert not sender.blocked
    sender.close()
    receiver.close()


def test_a_turn_is_bounded(pair):
    sender, receiver = pair
    sender.send(bytes(RECEIVE_BYTES))
    assert receiver.receive()
    assert not receiver.has_frame
    assert not receiver.receive()
    assert receiver.has_frame


def test_a_frame_that_its_taker_did_not_finish_with_is_not_taken_twice(pair):
    sender, receiver = pair
    for payload in (b"a", b"b"):
        sender.send(payload)
    receiver.receive()
    assert next(receiver.frames()) == b"a"
    assert list(receiver.frames()) == [b"b"]


def test_the_end_comes_after_all_that_was_sent(pair):
    sender, receiver = pair
    receiver.send(b"never read")
    sender.send(b"last")
    sender.close()
    receiver.receive()
    assert list(receiver.frames()) == [b"last"] and not receiver.ended
    receiver.receive()
    assert receiver.ended
    assert not receiver.send(b"to nobody")
    assert not receiver.blocked
