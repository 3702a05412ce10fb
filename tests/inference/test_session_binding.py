"""Runs bound to memory that already exists: read and written where it lies, shared memory included."""

from __future__ import annotations

from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from parallel_infer.errors import BadInput, ConfigError, Dropped, InferError, ResourceUnavailable
from parallel_infer.inference.engines import Stop
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.providers import choose, survey
from parallel_infer.inference.session import Session
from tests.inference import session_models as models

PROVIDERS = ("cpu", "openvino")


@pytest.fixture(scope="module", params=PROVIDERS)
def one_thread(request: pytest.FixtureRequest) -> SessionConfig:
    """Every provider that computes on the processor."""
    config = SessionConfig(provider=request.param, precision="fp32", threads=1)
    try:
        choose(config, survey(config))
    except ConfigError as error:
        pytest.skip(str(error))
    return config


@pytest.fixture(scope="module")
def identity(one_thread: SessionConfig) -> Session:
    return Session(models.identity(), one_thread)


@pytest.fixture(scope="module")
def nonzero(one_thread: SessionConfig) -> Session:
    return Session(models.nonzero(), one_thread)


def array(*shape: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + np.prod(shape), dtype=np.float32).reshape(shape)


def test_what_is_written_after_binding_is_seen_and_outputs_land_in_place(identity: Session):
    x, y = array(2, 8), np.zeros((2, 8), np.float32)
    binding = identity.bind({"x": x}, {"y": y})
    assert binding.run()["y"] is y
    np.testing.assert_array_equal(y, x)
    x += 100
    binding.run()
    np.testing.assert_array_equal(y, x)


def test_rows_of_a_ring_go_in_and_the_rest_of_a_slot_stays_as_it_is(identity: Session):
    ring, slot = array(16, 8), np.full((8, 8), -1, np.float32)
    identity.bind({"x": ring[5:8]}, {"y": slot[2:5]}).run()
    np.testing.assert_array_equal(slot[2:5], ring[5:8])
    assert (slot[:2] == -1).all()
    assert (slot[5:] == -1).all()


def test_shared_memory_is_run_from_and_into(identity: Session):
    segment = SharedMemory(create=True, size=256)
    try:
        whole = np.frombuffer(segment.buf, np.float32).reshape(2, 4, 8)
        whole[0] = array(4, 8)
        identity.bind({"x": whole[0]}, {"y": whole[1]}).run()
        np.testing.assert_array_equal(whole[1], array(4, 8))
        del whole
    finally:
        segment.close()
        segment.unlink()


def test_memory_of_any_alignment_is_taken(identity: Session):
    store = np.zeros(3 + 4 * 8 + 64, np.uint8)
    x, y = store[3 : 3 + 32].view(np.float32).reshape(1, 8), np.zeros((1, 8), np.float32)
    x[:] = array(1, 8)
    identity.bind({"x": x}, {"y": y}).run()
    np.testing.assert_array_equal(y, array(1, 8))


def test_a_binding_keeps_its_arrays_alive(identity: Session):
    binding = identity.bind({"x": array(1000, 8, start=7)}, {"y": np.empty((1000, 8), np.float32)})
    junk = [np.full((1000, 8), -5, np.float32) for _ in range(10)]  # would land where freed arrays were
    np.testing.assert_array_equal(binding.run()["y"], array(1000, 8, start=7))
    assert junk


def test_outputs_that_are_not_named_are_allocated(identity: Session):
    np.testing.assert_array_equal(identity.bind({"x": array(3, 8)}).run()["y"], array(3, 8))


def test_allocated_outputs_belong_to_the_caller(identity: Session):
    x = array(3, 8)
    binding = identity.bind({"x": x})
    first = binding.run()["y"]
    x[:] = -1
    second = binding.run()["y"]
    np.testing.assert_array_equal(first, array(3, 8))
    assert (second == -1).all()


@pytest.mark.parametrize("bound", [(), ("negative",), ("shape", "found"), ("found", "negative", "shape")])
def test_bound_and_allocated_outputs_are_not_mixed_up(bound, one_thread: SessionConfig):
    session = Session(models.three_kinds_of_output(), one_thread)
    arrays = {"negative": np.zeros((2, 4), np.float32), "shape": np.zeros(2, np.int64), "found": np.zeros(99, np.uint8)}
    x = np.array([[0, 1, 0, 1], [1, 0, 0, 0]], np.float32)
    binding = session.bind({"x": x}, {name: arrays[name] for name in bound})
    for _ in range(2):
        outputs = binding.run()
        np.testing.assert_array_equal(outputs["negative"], -x)
        np.testing.assert_array_equal(outputs["found"], np.nonzero(x))
        np.testing.assert_array_equal(outputs["shape"], [2, 4])
        assert all(np.shares_memory(outputs[name], arrays[name]) for name in bound)
        x[0] += 1


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "bool", "float64"])
def test_every_dtype_is_bound(dtype: str, one_thread: SessionConfig):
    kinds = {"uint8": 2, "int64": 7, "float16": 10, "bool": 9, "float64": 11}
    session = Session(models.identity(("batch", 4), kinds[dtype]), one_thread)
    x = np.array([[0, 1, 1, 0], [1, 1, 0, 0]], dtype)
    y = np.zeros_like(x)
    session.bind({"x": x}, {"y": y}).run()
    np.testing.assert_array_equal(y, x)


def test_an_output_of_unknown_size_is_copied_into_bytes(nonzero: Session):
    x, store = np.array([[0, 1, 0, 1], [1, 0, 0, 0]], np.float32), np.full(200, 255, np.uint8)
    binding = nonzero.bind({"x": x}, {"y": store})
    found = binding.run()["y"]
    np.testing.assert_array_equal(found, [[0, 0, 1], [1, 3, 0]])
    assert np.shares_memory(found, store)
    assert (store[found.nbytes :] == 255).all()
    x[:] = 0
    assert binding.run()["y"].shape == (2, 0)


def test_an_output_too_large_for_its_bytes_names_the_option(nonzero: Session):
    store = np.full(63, 255, np.uint8)
    with pytest.raises(ResourceUnavailable, match=r"y takes 64 bytes, 63 are reserved .* max_output_mb"):
        nonzero.bind({"x": np.ones((1, 4), np.float32)}, {"y": store}).run()
    assert (store == 255).all()


def test_an_output_of_known_size_goes_into_bytes_too(identity: Session):
    store = np.zeros(512, np.uint8)
    found = identity.bind({"x": array(2, 8)}, {"y": store}).run()["y"]
    np.testing.assert_array_equal(found, array(2, 8))
    assert np.shares_memory(found, store)


def test_bytes_of_a_byte_output_of_unknown_size_are_a_buffer(one_thread: SessionConfig):
    session = Session(models.identity(("batch",), 2), one_thread)
    store = np.zeros(5, np.uint8)
    session.bind({"x": np.arange(5, dtype=np.uint8)}, {"y": store}).run()
    np.testing.assert_array_equal(store, range(5))


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (np.zeros((3, 8), np.float32), r"y: float32 \[batch, 8\] is float32 \[3, 8\]"),
        (np.zeros((2, 8), np.float64), r"is float64 \[2, 8\]"),
        (np.zeros((8, 2), np.float32).T, "not C-contiguous"),
        (np.broadcast_to(np.float32(0), (2, 8)), "not C-contiguous"),
    ],
)
def test_an_output_array_that_does_not_fit_is_refused(identity: Session, output, text):
    with pytest.raises(BadInput, match=text):
        identity.bind({"x": array(2, 8)}, {"y": output})


def test_a_read_only_output_and_an_unknown_name_are_refused(identity: Session):
    frozen = np.zeros((2, 8), np.float32)
    frozen.setflags(write=False)
    with pytest.raises(BadInput, match="cannot be written"):
        identity.bind({"x": array(2, 8)}, {"y": frozen})
    with pytest.raises(BadInput, match="no output z"):
        identity.bind({"x": array(2, 8)}, {"z": frozen})
    with pytest.raises(BadInput, match="x is not C-contiguous"):
        identity.bind({"x": array(8, 2).T})


def test_an_output_whose_batch_is_declared_wrongly_lands_in_place(one_thread: SessionConfig):
    session = Session(models.wrong_about_its_batch(), one_thread)
    x, y = array(3, 4), np.zeros((3, 4), np.float32)
    session.bind({"x": x}, {"y": y}).run()
    np.testing.assert_array_equal(y, -x)
    with pytest.raises(InferError, match=r"came as \[3, 4\] where \[2, 4\]"):
        session.bind({"x": x}, {"y": y[:2]}).run()
    with pytest.raises(BadInput):
        session.bind({"x": x}, {"y": np.zeros((3, 5), np.float32)})


def test_an_output_of_another_shape_than_bound_is_an_error(one_thread: SessionConfig):
    session = Session(models.reshaped(), one_thread)
    inputs = {"x": array(2, 8), "s": np.array([4, 4])}
    with pytest.raises(InferError, match=r"\{2,8\}.*\{4,4\}|\[4, 4\] where \[2, 8\]"):
        session.bind(inputs, {"y": np.zeros((2, 8), np.float32)}).run()


def test_a_bound_run_is_stopped(one_thread: SessionConfig):
    stop = Stop()
    stop.set()
    binding = Session(models.endless(), one_thread).bind(models.endless_inputs(go=True))
    with pytest.raises(Dropped):
        binding.run(stop)
