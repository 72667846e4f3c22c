"""What tests of mining share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from facenet_fast.mining.devices import load_core

from .contract import INSTRUCTION_SETS


@pytest.fixture(params=INSTRUCTION_SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    core = load_core()
    before = core.instruction_set()
    core.set_instruction_set(request.param)
    yield request.param
    core.set_instruction_set(before)
