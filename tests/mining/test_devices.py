"""Which miner serves a call, and the one sentence where it cannot; no device is needed here."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from facenet_fast import batch_all_loss, count_triplets, mine_triplets, stream_triplets
from facenet_fast.mining import devices
from facenet_fast.mining.arrays import as_array, lies_on_device

from .batches import clustered

EMBEDDINGS, LABELS = clustered(5, 4, 8)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (mine_triplets, count_triplets, stream_triplets, batch_all_loss)
}
CPU = "mine with device='cpu'"
H100 = (0, "NVIDIA H100", (9, 0), 2**36)
OLD = (0, "Tesla P100", (6, 0), 2**34)


class OnDevice:
    """Rows that nobody can look into."""

    __cuda_array_interface__ = None


@pytest.fixture(autouse=True)
def found_anew() -> Iterator[None]:
    devices._find_cuda.cache_clear()
    yield
    devices._find_cuda.cache_clear()


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    found: list[Any] | Exception,
    *,
    is_emulated: bool = False,
) -> ModuleType:
    """Let the extension be there, and say that of its devices."""

    def list_devices() -> list[Any]:
        if isinstance(found, Exception):
            raise found
        return found

    module = ModuleType("facenet_fast._cuda")
    vars(module).update(devices=list_devices, is_emulated=lambda: is_emulated)
    monkeypatch.setitem(sys.modules, "facenet_fast._cuda", module)
    return module


def pretend_import_fails(monkeypatch: pytest.MonkeyPatch, error: ImportError) -> None:
    def fail(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(devices, "import_module", fail)


def sentence_of(error: type[Exception], call: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_device_that_is_none_is_told_the_choices(name: str) -> None:
    for device in ("gpu", "CUDA", None, 0, "cuda:0", ["cuda"]):
        message = f"^device must be one of cpu, cuda, auto; got {re.escape(repr(device))}$"
        with pytest.raises(ValueError, match=message):
            FUNCTIONS[name](EMBEDDINGS, LABELS, device=device)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_device_is_the_cpu_unless_asked_for(name: str) -> None:
    parameter = inspect.signature(FUNCTIONS[name]).parameters["device"]
    assert parameter.default == "cpu"
    assert parameter.kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("function", [mine_triplets, count_triplets])
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_the_specification_knows_no_device(function: Any, device: str) -> None:
    with pytest.raises(
        ValueError,
        match=f"^device must be 'cpu' with backend='reference', which is plain numpy; got '{device}'$",
    ):
        function(EMBEDDINGS, LABELS, backend="reference", device=device)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_extension_that_was_not_built(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "facenet_fast._cuda", None)
    sentence = sentence_of(ImportError, lambda: FUNCTIONS[name](EMBEDDINGS, LABELS, device="cuda"))
    assert sentence == (
        "the CUDA miner facenet_fast._cuda was not built: put nvcc on PATH and run "
        "'CMAKE_ARGS=-DFACENET_FAST_CUDA=ON pip install .' in the source folder, or mine with device='cpu'"
    )
    # And "auto" says nothing.
    FUNCTIONS[name](EMBEDDINGS, LABELS, device="auto")


def test_an_extension_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_import_fails(monkeypatch, ImportError("libstdc++.so.6: cannot open shared object file"))
    sentence = sentence_of(ImportError, devices.load_cuda)
    assert "facenet_fast._cuda cannot be loaded (libstdc++.so.6: cannot open shared object file)" in sentence
    assert CPU in sentence


@pytest.mark.parametrize(
    "reason",
    [
        "there is no NVIDIA driver, or it is too old for the CUDA 13.0 of this build",
        "there is no CUDA device, or CUDA_VISIBLE_DEVICES hides it",
        "CUDA says: system not yet initialized (cudaErrorSystemNotReady)",
    ],
)
def test_no_device(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, RuntimeError(reason))
    for _ in range(2):
        assert sentence_of(RuntimeError, devices.load_cuda) == (
            f"the CUDA miner has no device: {reason}; {CPU}"
        )
    assert devices.choose_device("auto", True, 10**6) == "cpu"


def test_devices_that_are_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [OLD, (1, "Tesla K80", (3, 7), 2**33)])
    assert sentence_of(RuntimeError, devices.load_cuda) == (
        "the CUDA miner needs a device of compute capability 7.5 at least; "
        f"got Tesla P100 of 6.0, Tesla K80 of 3.7; {CPU}"
    )
    assert devices.choose_device("auto", True, 10**6) == "cpu"


def test_one_device_that_is_new_enough_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    module = pretend(monkeypatch, [OLD, (1, "NVIDIA T4", (7, 5), 2**34)])
    assert devices.load_cuda() is module


def test_auto_goes_where_it_is_likely_to_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [H100])
    enough = devices._WORTH_THE_WAY
    assert [devices.choose_device("auto", False, n) for n in (0, enough - 1, enough)] == [
        "cpu",
        "cpu",
        "cuda",
    ]
    assert devices.choose_device("auto", True, 0) == "cuda"
    assert devices.choose_device("cuda", False, 0) == "cuda"
    assert devices.choose_device("cpu", True, enough) == "cpu"


def test_auto_never_takes_the_emulated_device(monkeypatch: pytest.MonkeyPatch) -> None:
    module = pretend(monkeypatch, [H100], is_emulated=True)
    assert devices.choose_device("auto", True, 10**6) == "cpu"
    assert devices.choose_device("cuda", False, 0) == "cuda"
    assert devices.load_cuda() is module


def test_who_lies_on_a_device() -> None:
    class ByDLPack:
        def __init__(self, kind: int) -> None:
            self.kind = kind

        def __dlpack_device__(self) -> tuple[int, int]:
            return self.kind, 0

    class Symbolic:
        def __dlpack_device__(self) -> tuple[int, int]:
            raise NotImplementedError("symbolic")

    class NotYet:
        @property
        def __cuda_array_interface__(self) -> Any:
            raise AttributeError("on the CPU")

    class Learning:
        @property
        def __cuda_array_interface__(self) -> Any:
            raise RuntimeError("requires grad")

    assert lies_on_device(OnDevice())
    assert [lies_on_device(ByDLPack(kind)) for kind in (1, 2, 3, 10, 13)] == [False, True, False, False, True]
    for values in (EMBEDDINGS, [1.0], "ab", None, 3, Symbolic(), NotYet(), Learning()):
        assert not lies_on_device(values)


def test_rows_on_a_device_that_nobody_brings_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "facenet_fast._cuda", None)

    class Refusing(OnDevice):
        def __array__(self) -> Any:
            raise TypeError("implicit conversion is not allowed")

    for values, got in ((OnDevice(), "which lies on a CUDA device"), (Refusing(), "implicit conversion")):
        for call in (
            lambda values=values: as_array(values, "embeddings"),
            lambda values=values: mine_triplets(values, LABELS),
            lambda values=values: mine_triplets(values, LABELS, device="auto"),
        ):
            sentence = sentence_of(TypeError, call)
            assert sentence.startswith("embeddings must be what numpy can take; got tests's ")
            assert got in sentence
            assert "was not built" in sentence
    with pytest.raises(ImportError, match="was not built"):
        mine_triplets(OnDevice(), LABELS, device="cuda")


def test_the_page_has_every_sentence() -> None:
    page = " ".join((Path(__file__).resolve().parents[2] / "docs/gpu.md").read_text().split())
    for words in (
        "was not built",
        "cannot be loaded",
        "there is no NVIDIA driver, or it is too old for the CUDA",
        "there is no CUDA device, or CUDA_VISIBLE_DEVICES hides it",
        "needs a device of compute capability 7.5 at least",
    ):
        assert words in page
    assert str(devices._WORTH_THE_WAY) in page.replace(",", "")
