"""What a router is told: options, environment, file; and what is refused by name."""

from pathlib import Path

import pytest

from parallel_infer.config.route_sources import ROUTE_FIELDS, read_route
from parallel_infer.errors import ConfigError
from parallel_infer.router.sources import Sources, check_distinct, endpoint_of, member_of, members_of_file


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path):
    file = tmp_path / "route.toml"
    file.write_text('member = ["tcp://10.0.0.1:5555"]\nsilence_ms = 300\nmost_lost = 5\nkept_mb = 7\nkeys = "k"\n')
    environment = {
        "PARALLEL_INFER_ROUTE_SILENCE_MS": "400",
        "PARALLEL_INFER_ROUTE_MOST_LOST": "6",
        "PARALLEL_INFER_ROUTE_PORT": "tcp://10.96.0.7:5555",  # Kubernetes', for a service of that name
        "PARALLEL_INFER_BIND": "tcp://127.0.0.1:1",  # a server's
    }
    found = read_route({"silence_ms": 500.0, "members": ()}, file, environment)
    assert (found.silence_ms, found.most_lost, found.kept_mb) == (500.0, 6, 7)
    assert found.member == ["tcp://10.0.0.1:5555"]
    assert found.keys == str(tmp_path / "k")
    assert found.bind == ["tcp://127.0.0.1:5555"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("silence = 3", "no setting 'silence'.*silence_ms"),
        ("silence_ms = 3", "silence_ms is 3"),
        ("member = 3", "member is 3"),
        ("[models.a]\npath = 'x'", "no setting 'models'"),
        ("= 3", "no TOML|not a TOML"),
        ('bind = ["tcp://0.0.0.0:5555"]', "can be reached from other machines"),
        ('http = ["0.0.0.0:8000"]', "can be reached from other machines"),
        ('http = ["nonsense"]', "no address of a door"),
    ],
)
def test_a_file_with_nonsense_is_refused_by_name(tmp_path: Path, text: str, why: str):
    (tmp_path / "route.toml").write_text(text)
    with pytest.raises(ConfigError, match=why):
        read_route({}, tmp_path / "route.toml", {})


def test_misspelt_variables_are_refused():
    with pytest.raises(ConfigError, match="PARALLEL_INFER_ROUTE_SILENCE_M"):
        read_route({}, None, {"PARALLEL_INFER_ROUTE_SILENCE_M": "3"})
    with pytest.raises(ConfigError, match="expected a number"):
        read_route({}, None, {"PARALLEL_INFER_ROUTE_SILENCE_MS": "soon"})


def test_every_setting_says_what_it_is():
    assert all(field.meaning.endswith(".") for field in ROUTE_FIELDS.values())


@pytest.mark.parametrize(
    ("text", "member"),
    [
        ("tcp://10.0.0.1:5555", ("tcp://10.0.0.1:5555", "tcp://10.0.0.1:5555")),
        ("one=tcp://host.example:5555", ("one", "tcp://host.example:5555")),
        ("ipc:///tmp/a=b", ("ipc:///tmp/a=b", "ipc:///tmp/a=b")),
        ("tcp://[fd00::7]:5555", ("tcp://[fd00::7]:5555", "tcp://[fd00::7]:5555")),
    ],
)
def test_members(text: str, member: tuple[str, str]):
    assert member_of(text) == member


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:5555", "http://host:1", "tcp://host", "tcp://host:0", "tcp://host:99999", "tcp://:1", "ipc://"],
)
def test_what_is_no_member(text: str):
    with pytest.raises(ConfigError, match="no address of a server|a port is"):
        member_of(text)


@pytest.mark.parametrize("text", ["dns:", "dns:name", "dns::5", "dns:name:x", "dns:name:0"])
def test_what_is_no_name_to_look_up(text: str):
    with pytest.raises(ConfigError, match="dns:NAME:PORT"):
        Sources([text])


def test_nobody_named_is_refused():
    with pytest.raises(ConfigError, match="--member"):
        Sources([])


def test_two_under_one_name_and_one_under_two():
    with pytest.raises(ConfigError, match="two members are called 'a'"):
        check_distinct([("a", "tcp://x:1"), ("a", "tcp://y:1")])
    with pytest.raises(ConfigError, match="named twice"):
        check_distinct([("a", "tcp://x:1"), ("b", "tcp://x:1")])


def test_a_file_of_members(tmp_path: Path):
    file = tmp_path / "members"
    file.write_text("# all of them\n\none tcp://10.0.0.1:1  # the first\nipc:///run/two\n")
    assert members_of_file(file) == [("one", "tcp://10.0.0.1:1"), ("ipc:///run/two", "ipc:///run/two")]
    for text, why in (("a b c\n", "line 1"), ("\n\nnonsense\n", "line 3"), ("a ipc://x\na ipc://y\n", "called 'a'")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=why):
            members_of_file(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="no text"):
        members_of_file(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        members_of_file(tmp_path / "none")


def test_the_addresses_of_a_name_come_and_go_and_what_was_known_counts_while_it_does_not_resolve():
    found = ["tcp://10.0.0.2:5555", "tcp://10.0.0.1:5555", "tcp://10.0.0.1:5555"]

    def resolve(host: str, port: int) -> list[str]:
        assert (host, port) == ("nodes", 5555)
        if not found:
            raise OSError("Name or service not known")
        return found

    sources = Sources(["fixed=ipc:///run/own", "dns:nodes:5555"], resolve)
    assert [name for name, _ in sources.look().members] == ["fixed", "tcp://10.0.0.1:5555", "tcp://10.0.0.2:5555"]
    found = []
    look = sources.look()
    assert len(look.members) == 3
    assert "does not resolve" in look.problems[0]
    found = ["tcp://10.0.0.3:5555"]
    assert [name for name, _ in sources.look().members] == ["fixed", "tcp://10.0.0.3:5555"]


def test_names_are_looked_up_and_numbers_are_not():
    def resolve(host: str, port: int) -> list[str]:
        return [f"tcp://{host}.found:{port}"]

    assert endpoint_of("tcp://name:1", resolve) == "tcp://name.found:1"
    for address in ("tcp://10.0.0.1:1", "tcp://[::1]:1", "ipc:///run/x"):
        assert endpoint_of(address, resolve) == address
