"""Settings found by a trial: at a server's first start, kept for the next, and what is done where nothing can be."""

from __future__ import annotations

import dataclasses
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from parallel_infer.config.schema import ServerConfig
from parallel_infer.config.sources import load_config
from parallel_infer.ipc.messages import LoadModel, Started
from parallel_infer.supervisor.plan import LATER, UNTRIED, Plan, beside, make_plan, planned_again, with_chosen
from parallel_infer.supervisor.tried import GIVEN, SLOW, known_settings, summary, tried, within
from parallel_infer.trial.record import Record, Records
from parallel_infer.trial.settings import Setting
from tests.engine import graphs
from tests.engine.serving import Server, eventually, running, short_folder
from tests.supervisor.core_rig import Rig, spec

CHOSEN, DEFAULT = Setting(3, 5, 32), Setting(2, 1, 8)
RECORD = Record(
    models=("m",),
    settings=(CHOSEN,),
    default=(DEFAULT,),
    rate=9.5,
    default_rate=4.5,
    seconds=3.0,
    rates={str(CHOSEN): 9.5, str(DEFAULT): 4.5},
    trial_seconds=1.0,
)
WAITS = "trying settings of m for at most"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graphs.large(tmp_path_factory.mktemp("model") / "m.onnx", 64)


def started(model: Path, cache: Path, seconds: int = 4) -> Server:
    options = ("--trial", "--trial-seconds", str(seconds), "--max-batch-size", "2", "--threads", "1")
    folder = short_folder()
    bind = ("--bind", f"ipc://{folder}/s", "--model", f"m={model}")
    return Server(folder, *bind, *options, environment={"XDG_CACHE_HOME": str(cache)})


def trial_of(server: Server) -> str:
    with server.client() as client:
        return str(client.status()["models"]["m"]["trial"])


def test_the_first_start_tries_and_says_so_and_the_next_one_remembers(model: Path, tmp_path: Path) -> None:
    for _ in range(2):  # where the machine is so busy that the time is over, there is one more
        with running(started(model, tmp_path)) as server:
            found = trial_of(server)
            log = server.log.read_text()
            assert log.count(WAITS) == 1
            assert found in log
        if "option trial_seconds" not in found and "other programs" not in found:
            break
    with running(started(model, tmp_path)) as server:
        assert trial_of(server) == found
        assert WAITS not in server.log.read_text()


def test_a_stop_during_a_trial_leaves_nothing(model: Path, tmp_path: Path) -> None:
    server = started(model, tmp_path, seconds=600)
    try:
        eventually(lambda: WAITS in server.log.read_text())
        eventually(lambda: "trial infer" in server.children())
        family = server.supervisor.children(recursive=True)
        assert server.stop(signal.SIGINT) == 0
        assert not [child for child in family if child.is_running()]
        assert server.run_directories() == []
        assert "Traceback" not in server.log.read_text()
    finally:
        server.close()


# --- in this process, where nothing is tried --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan(model: Path) -> Plan:
    return make_plan(config(model, Path("/nowhere")))


def config(model: Path, cache: Path, **values: Any) -> ServerConfig:
    told = {"models": [f"m={model}"], "provider": "cpu", "trial": True, "trial_seconds": 1.0, "cache": str(cache)}
    return load_config(told | values, None, {})


def said(config: ServerConfig, plan: Plan, folder: Path) -> str:
    """What is said of a start that has no reason to wait."""
    return tried(config, plan, folder, pytest.fail).trial


def with_provider(plan: Plan, provider: Any) -> Plan:
    (model,) = plan.models
    session = msgspec.structs.replace(model.session, provider=provider)
    return dataclasses.replace(plan, models=(msgspec.structs.replace(model, session=session),))


def test_what_is_not_asked_for_is_not_tried(model: Path, plan: Plan, tmp_path: Path) -> None:
    assert said(config(model, tmp_path, trial=False), plan, tmp_path) == UNTRIED
    assert said(config(model, tmp_path, instances=1, threads=1, max_batch_size=1), plan, tmp_path) == GIVEN
    assert said(config(model, tmp_path, provider="tensorrt"), with_provider(plan, "tensorrt"), tmp_path) == SLOW
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_the_graph_demands_is_as_good_as_given(tmp_path: Path) -> None:
    told = config(graphs.fixed(tmp_path / "fixed.onnx"), tmp_path / "cache", instances=1, threads=1)
    assert known_settings(told, make_plan(told)).trial == GIVEN
    open_ones = msgspec.structs.replace(told, threads=0)
    assert known_settings(open_ones, make_plan(open_ones)).trial == ""


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """A file in the place of the folder: permissions do not keep root from anything."""
    place = tmp_path / "file"
    place.write_text("")
    yield place
    place.unlink()


def test_what_could_not_be_kept_is_not_tried(
    model: Path, plan: Plan, unwritable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = tried(config(model, unwritable), plan, unwritable, pytest.fail)
    assert found.models[0].instances == plan.models[0].instances
    assert found.trial.startswith("not tried: cache ")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "option trial" in record.message


def test_two_servers_do_not_disturb_one_another(model: Path, plan: Plan, tmp_path: Path) -> None:
    with Records(tmp_path / "trials").locked():
        assert said(config(model, tmp_path), plan, tmp_path) == (
            "not tried: another server here tries its models at the moment"
        )


@pytest.fixture(scope="module")
def record_name(model: Path, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the file is called in which a trial of this model keeps what it finds."""
    folder = tmp_path_factory.mktemp("trial")
    why: list[str] = []
    tried(config(model, folder), plan, folder, why.append)
    assert len(why) == 1
    (file,) = (folder / "trials").glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) & 0o022 == 0
    return file.name


@pytest.fixture
def file(tmp_path: Path, record_name: str) -> Path:
    (tmp_path / "trials").mkdir()
    return tmp_path / "trials" / record_name


def keep(file: Path, record: Record, **changes: Any) -> None:
    """As if a trial had found it."""
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(record, **changes)))


def test_time_that_was_too_short_is_remembered_until_there_is_more(
    model: Path, plan: Plan, tmp_path: Path, file: Path
) -> None:
    told, more = config(model, tmp_path), config(model, tmp_path, trial_seconds=20.0)
    keep(file, RECORD, settings=(DEFAULT,), rates={}, complete=False, attempts=2)
    assert known_settings(told, plan).trial == (
        "1 s were too short to try settings (option trial_seconds); "
        "the default, with more trial_seconds it is tried again"
    )
    assert known_settings(more, plan).trial == ""


def test_a_trial_whose_time_was_over_is_done_once_more(model: Path, plan: Plan, tmp_path: Path, file: Path) -> None:
    told = config(model, tmp_path)
    keep(file, RECORD, complete=False)
    assert known_settings(told, plan).trial == ""
    tried(told, plan, tmp_path, lambda _: None)
    assert msgspec.json.decode(file.read_bytes())["attempts"] == 2
    assert known_settings(told, plan).trial != ""


def test_what_was_measured_on_a_busy_machine_is_measured_once_more(
    model: Path, plan: Plan, tmp_path: Path, file: Path
) -> None:
    told = config(model, tmp_path)
    busy = msgspec.structs.replace(RECORD, settings=(DEFAULT,), others=0.5)
    keep(file, busy)
    assert known_settings(told, plan).trial == ""
    keep(file, busy, attempts=2)
    assert known_settings(told, plan).trial == (
        "tried 2 settings in 3 s, but other programs took 50% of the cores meanwhile; "
        "the default, with more trial_seconds it is tried again"
    )


def test_a_damaged_record_is_a_warning_and_found_anew(
    model: Path, plan: Plan, tmp_path: Path, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = config(model, tmp_path)
    file.write_text("{")
    assert known_settings(told, plan).trial == ""
    assert f"{file} is damaged" in caplog.text
    why: list[str] = []
    found = tried(told, plan, tmp_path, why.append)
    assert len(why) == 1
    assert found.trial != ""
    assert msgspec.json.decode(file.read_bytes())["attempts"] == 1


def test_what_was_chosen_is_served_and_memory_that_is_short_takes_large_batches_first(
    model: Path, plan: Plan, tmp_path: Path, file: Path
) -> None:
    told = config(model, tmp_path)
    keep(file, RECORD)
    found = known_settings(told, plan)
    (served,) = found.models
    assert (served.instances, served.session.threads, served.max_batch) == (3, 5, 32)
    assert served.session.alone_threads >= 5
    assert served.trial == (
        "tried 2 settings in 3 s: chose 3 x 5, batch 32, 9.5/s against 4.5/s of the default 2 x 1, batch 8"
    )
    (again,) = planned_again(found, told).models
    assert (again.instances, again.session.threads, again.max_batch) == (3, 5, 8)
    by_hand = known_settings(config(model, tmp_path, threads=1), plan)
    assert by_hand.trial == ""  # others were tried with other threads


def test_of_several_models_it_is_said_that_each_counts_alike() -> None:
    both = {"models": ("m", "n"), "settings": (CHOSEN, DEFAULT), "default": (DEFAULT, DEFAULT)}
    record = msgspec.structs.replace(RECORD, **both, rate=1099.0, default_rate=1340.3, gain=1.12)
    assert summary(record, ["m", "n"]) == (
        "tried 2 settings in 3 s: chose m 3 x 5, batch 32 and n 2 x 1, batch 8, on average 1.12 times the rates of the "
        "default m 2 x 1, batch 8 and n 2 x 1, batch 8; all together 1099/s against 1340.3/s"
    )


def test_what_was_chosen_never_keeps_a_server_from_starting(model: Path, plan: Plan) -> None:
    """Shared memory may have room for the default, and for nothing more."""
    told = config(model, Path("/nowhere"))
    split = msgspec.structs.replace(CHOSEN, max_batch=8)
    chosen, smaller = (with_chosen(plan, told, {"m": setting}, "so") for setting in (CHOSEN, split))
    assert plan.total < smaller.total < chosen.total
    assert within(told, plan, chosen, chosen.total) == chosen
    found = within(told, plan, chosen, smaller.total)
    assert (found.total, found.trial) == (smaller.total, "so; /dev/shm has no room for such batches")
    for free in (smaller.total - 1, plan.total, plan.total - 1):
        found = within(told, plan, chosen, free)
        assert (found.total, found.chosen) == (plan.total, {})
        assert found.models[0].trial == "so; /dev/shm has no room for that, so the default is served"


def test_a_model_that_is_loaded_later_is_not_tried(tmp_path: Path) -> None:
    rig = Rig().serving()
    rig.take(LoadModel(7, "n", __file__, b"\x80"))  # type: ignore[arg-type]
    rig.find("n", spec("n"))
    for number in range(2):
        rig.say(f"infer-n-{number}", Started())
    assert rig.core.registry.reports()["n"].trial == LATER


def test_a_new_version_of_a_model_takes_over_its_settings(model: Path, plan: Plan) -> None:
    """Unless its options are others: that would be another question to a trial."""
    told = config(model, Path("/nowhere"))
    (before,) = with_chosen(plan, told, {"m": CHOSEN}, "tried").models
    assert beside(told, before, ()) == (CHOSEN, "tried")
    assert beside(told, before, ("threads",)) == (None, LATER)
    assert beside(told, None, ()) == (None, LATER)
    assert beside(config(model, Path("/nowhere"), trial=False), before, ()) == (None, UNTRIED)
