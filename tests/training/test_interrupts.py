"""Ctrl-C waits for the end of the block."""

import signal
import threading

import pytest

from facenet_fast.training.interrupts import interrupt_deferred


def lines_run(n_interrupts):
    lines = []
    try:
        with interrupt_deferred():
            for _ in range(n_interrupts):
                signal.raise_signal(signal.SIGINT)
                lines.append("interrupted")
            lines.append("end of the block")
    except KeyboardInterrupt:
        lines.append("raised")
    return lines


def test_the_block_ends_before_the_interrupt():
    assert lines_run(n_interrupts=1) == ["interrupted", "end of the block", "raised"]


def test_a_second_interrupt_does_not_wait():
    assert lines_run(n_interrupts=2) == ["interrupted", "raised"]


def test_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    with interrupt_deferred():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ZeroDivisionError), interrupt_deferred():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_let_through():
    done = []

    def work():
        with interrupt_deferred():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
