"""Jobs in flight together get their own answers, whatever a model's first dimensions are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest

from parallel_infer import Client
from parallel_infer.errors import ModelRejected
from tests.engine.serving import Server
from tests.families.test_batch_proof import cut, first_only, graph, node, number, recurrent, time_major

JOBS = 12
CONFIG = """
[models.steps]
path = "steps.onnx"
task = "tensor"
[models.state]
path = "state.onnx"
[models.state.shapes]
state = [2, 4]
[models.first]
path = "first.onnx"
[models.cut]
path = "cut.onnx"
[models.rate]
path = "rate.onnx"
[models.second]
path = "second.onnx"
[models.third]
path = "third.onnx"
"""


def rate() -> onnx.ModelProto:
    """y = x times a number that is an input of its own."""
    return graph(
        [node("Mul", ["x", "rate"], ["y"]), node("Add", ["rate", "one"], ["next"])],
        {"x": ("batch", 3), "rate": ()},
        {"y": ("batch", 3), "next": ()},
        [number("one", 1.0, np.float32)],
    )


def second(shape: tuple[str | int, ...] = ()) -> onnx.ModelProto:
    """y = x times entry n - 3 of [10, 20]: 0 is refused, 1 is 10."""
    return graph(
        [
            node("Sub", ["n", "three"], ["place"]),
            node("Gather", ["table", "place"], ["factor"]),
            node("Mul", ["x", "factor"], ["y"]),
        ],
        {"x": ("batch", 3), "n": shape},
        {"y": ("batch", 3)},
        [number("three", 3), number("table", [10, 20], np.float32)],
        integers=("n",),
    )


def up_to_four() -> onnx.ModelProto:
    """y = x, but a batch of more than four fails."""
    return graph(
        [
            node("Shape", ["x"], ["shape"]),
            node("Slice", ["shape", "zero", "one"], ["jobs"]),
            node("Sub", ["jobs", "one"], ["last"]),
            node("Gather", ["table", "last"], ["nothing"]),
            node("Add", ["x", "nothing"], ["y"]),
        ],
        {"x": ("batch", 3)},
        {"y": ("batch", 3)},
        [number("zero", [0]), number("one", [1]), number("table", [0, 0, 0, 0], np.float32)],
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    models = {
        "steps": time_major(),
        "state": recurrent(),
        "first": first_only(1),
        "cut": cut(),
        "rate": rate(),
        "second": second(),
        "third": second((1,)),
    }
    for name, model in models.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    config = folder / "server.toml"
    config.write_text(CONFIG)
    server = Server(folder, "--config", str(config), "--bind", f"ipc://{folder}/door")
    server.wait_until_ready()
    yield server
    server.check_clean_end()


@pytest.fixture
def client(models: Server) -> Iterator[Client]:
    with models.client() as client:
        yield client


def together(client: Client, model: str, jobs: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """The tensors that each job gets, all of them in flight at once."""
    waiting = [client.submit(model, job) for job in jobs]
    return [dict(answer.result().tensors) for answer in waiting]


def test_steps_in_time_stay_with_their_picture(client: Client) -> None:
    jobs = [{"image": np.full((3, 4, 8), place, np.float32)} for place in range(JOBS)]
    for place, tensors in enumerate(together(client, "steps", jobs)):
        np.testing.assert_array_equal(tensors["logits"], np.full((4, 24), place))


def test_a_state_stays_with_its_job(client: Client) -> None:
    jobs = [
        {"x": np.full(8, place, np.float32), "state": np.full((2, 4), 10 * place, np.float32)} for place in range(JOBS)
    ]
    for place, tensors in enumerate(together(client, "state", jobs)):
        np.testing.assert_array_equal(tensors["y"], [8 * place + 80 * place])
        np.testing.assert_array_equal(tensors["next"], np.full((2, 4), 20 * place))


def test_a_state_may_be_sent_back_with_its_batch_of_one(client: Client) -> None:
    answer = client.infer("state", {"x": np.ones(8, np.float32), "state": np.ones((2, 1, 4), np.float32)})
    np.testing.assert_array_equal(answer.tensors["y"], [16])


def test_no_job_comes_out_empty(client: Client) -> None:
    jobs = [{"x": np.full(3, place + 1, np.float32)} for place in range(JOBS)]
    for place, tensors in enumerate(together(client, "first", jobs)):
        np.testing.assert_array_equal(tensors["y"], np.full(3, place + 1))


def test_single_numbers_go_in_and_out(client: Client) -> None:
    jobs = [{"x": np.ones(3, np.float32), "rate": np.array(place, np.float32)} for place in range(JOBS)]
    for place, tensors in enumerate(together(client, "rate", jobs)):
        np.testing.assert_array_equal(tensors["y"], np.full(3, place))
        assert tensors["next"] == place + 1


@pytest.mark.parametrize("gray", [0, 64, 128, 255])
def test_a_picture_decides_how_many_objects_there_are(client: Client, gray: int) -> None:
    assert client.infer("cut", np.full((64, 64, 3), gray, np.uint8)).scores.shape == (0,)


def test_a_single_number_may_be_one_that_refuses_zero(client: Client) -> None:
    answer = client.infer("second", {"x": np.ones(3, np.float32), "n": np.array(2)})
    np.testing.assert_array_equal(answer.tensors["y"], [20, 20, 20])


def test_readiness_asks_with_numbers_that_a_model_takes(client: Client) -> None:
    assert set(client.health()["models"].values()) == {"ready"}


def test_a_model_that_fails_in_its_worker_is_refused_and_the_others_go_on(models: Server, client: Client) -> None:
    path = models.folder / "four.onnx"
    path.write_bytes(up_to_four().SerializeToString())
    with pytest.raises(ModelRejected, match="cannot be loaded"):
        client.load("four", path)
    assert client.infer("first", {"x": np.ones(3, np.float32)}).tensors["y"].tolist() == [1, 1, 1]
