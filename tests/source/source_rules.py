"""Rules over the text of the packages, read as syntax trees: what must not be in there, and what only in one place.

A rule is a function from one source to its violations. Names are resolved through the imports of the file, so that
`from multiprocessing import Process as P; P()` is seen as `multiprocessing.Process`.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

FORBIDDEN_MODULES = (
    *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"),
    "multiprocessing.reduction",
)
FORBIDDEN_CALLS = {
    *("eval", "exec", "builtins.eval", "builtins.exec"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.full_load_all", "yaml.unsafe_load_all"),
}
FORBIDDEN_METHODS = {"recv_pyobj", "send_pyobj"}

# All else of multiprocessing starts processes in ways of its own, or pickles.
ALLOWED_MULTIPROCESSING = ("connection", "shared_memory", "resource_tracker")
# Our own children, and a whole server as users start it.
STARTS = (
    "parallel_infer/process/interpreter.py",
    "parallel_infer/tools/local_server.py",
    "parallel_infer/fleet/child.py",  # the same below Ray, which must not share its signals with it
)
FORKS = {"os.fork", "os.forkpty", "pty.fork", "os.posix_spawn", "concurrent.futures.ProcessPoolExecutor"}

ZMQ_FILES = (
    "parallel_infer/ipc/channel.py",
    "parallel_infer/ipc/client_socket.py",
    "parallel_infer/ipc/member_socket.py",
    "parallel_infer/client*.py",
    "parallel_infer/client/*",
    "parallel_infer/doors/zmq_door.py",
)
PUBLIC_ANYWAY = {"_exit", "_replace", "_asdict", "_fields"}  # of os, and of named tuples
PATCHES = {"setattr", "delattr", "getattr", "hasattr", "patch"}
CHECKS = {"raises", "fail", "assert_array_equal", "assert_allclose", "assert_outcomes"}  # of libraries
HOMES = {
    "aiohttp": ("parallel_infer/doors/http/*",),
    "grpc": ("parallel_infer/doors/grpc/*",),
    "ray": ("parallel_infer/fleet/applications.py", "parallel_infer/cli/deploy.py"),
    "zmq": ZMQ_FILES,
    "multiprocessing.shared_memory": ("parallel_infer/shm/ring.py", "parallel_infer/shm/segment.py"),
    "onnxruntime": (
        *(
            "parallel_infer/inference/ort.py",
            "parallel_infer/inference/engines/*",
            "parallel_infer/inference/providers.py",
        ),
        *("parallel_infer/cli/inspect.py", "parallel_infer/cli/doctor.py"),
        "stages/recognise/*",
        "parallel_infer/tools/quantize/quantization.py",  # the quantizer is a part of ONNX Runtime
    ),
    "openvino": ("parallel_infer/inference/engines/openvino.py",),
}


@dataclass(frozen=True)
class Source:
    """One file: its path from the root of the project, and its tree."""

    path: str
    tree: ast.Module
    names: dict[str, str] = field(default_factory=dict)  # a name in this file -> the dotted name it was imported as

    @classmethod
    def parse(cls, path: str, text: str) -> Source:
        source = cls(path, ast.parse(text, path))
        for node in source.nodes():
            if isinstance(node, ast.Import):
                source.names.update((a.asname or top(a.name), a.name if a.asname else top(a.name)) for a in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = source.origin(node)
                source.names.update((a.asname or a.name, f"{module}.{a.name}") for a in node.names)
        return source

    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(self.tree)

    def calls(self) -> Iterator[ast.Call]:
        return (node for node in self.nodes() if isinstance(node, ast.Call))

    def origin(self, node: ast.ImportFrom) -> str:
        """The absolute name of the module that `from ... import` names."""
        if not node.level:
            return node.module or ""
        package = PurePosixPath(self.path).parts[: -node.level]
        return ".".join((*package, *([node.module] if node.module else [])))

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and dotted name of all that is imported, wherever it stands; `from a import b` gives a.b."""
        for node in self.nodes():
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((node.lineno, f"{self.origin(node)}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Call) and self.dotted(node.func) in {"importlib.import_module", "__import__"}:
                yield from ((node.lineno, a.value) for a in node.args[:1] if is_text(a))

    def dotted(self, node: ast.AST) -> str:
        """The absolute name of a chain of attributes, "" for anything else."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (owner := self.dotted(node.value)):
            return f"{owner}.{node.attr}"
        return ""

    def uses(self) -> Iterator[tuple[int, str]]:
        """Line and absolute name of every name and chain of attributes, and of every import."""
        yield from self.imports()
        for node in self.nodes():
            if isinstance(node, ast.Name | ast.Attribute) and (name := self.dotted(node)):
                yield node.lineno, name


@dataclass(frozen=True)
class Violation:
    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


Rule = Callable[[Source], Iterator[Violation]]


def top(name: str) -> str:
    return name.split(".")[0]


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def within(name: str, module: str) -> bool:
    """Whether a dotted name is the module or something in it; onnxruntime_extra is not in onnxruntime."""
    return name == module or name.startswith(f"{module}.")


def nothing_is_unpickled(source: Source) -> Iterator[Violation]:
    """No pickle and its like, no eval, no yaml.load: nothing that comes from outside is ever executed."""
    for line, name in source.imports():
        if any(within(name, module) for module in FORBIDDEN_MODULES):
            yield Violation(source.path, line, f"imports {name}")
    for node in source.nodes():
        if isinstance(node, ast.Name | ast.Attribute) and source.dotted(node) in FORBIDDEN_CALLS:
            yield Violation(source.path, node.lineno, f"uses {source.dotted(node)}")
        if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN_METHODS:
            yield Violation(source.path, node.lineno, f"uses {node.attr}, which pickles")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and not is_false(node.value):
            yield Violation(source.path, node.value.lineno, "allows pickle in a NumPy file")


def is_false(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def pipes_carry_bytes(source: Source) -> Iterator[Violation]:
    """`recv` of a multiprocessing connection unpickles; only the files that import zmq may call a `recv`."""
    if any(fnmatchcase(source.path, home) for home in ZMQ_FILES):
        return
    for node in source.calls():
        if isinstance(node.func, ast.Attribute) and node.func.attr == "recv":
            yield Violation(source.path, node.lineno, "calls recv(); a pipe is read with recv_bytes()")


def views_pin_their_mapping(source: Source) -> Iterator[Violation]:
    """np.ndarray over a buffer does not keep a shared-memory mapping alive; np.frombuffer does."""
    for node in source.calls():
        given = {keyword.arg for keyword in node.keywords}  # None stands for **keywords
        has_buffer = len(node.args) > 2 or given & {"buffer", None}
        if source.dotted(node.func) in {"numpy.ndarray", "numpy.ndarray.__new__"} and has_buffer:
            yield Violation(source.path, node.lineno, "np.ndarray over a buffer; use np.frombuffer")


def processes_are_spawned(source: Source) -> Iterator[Violation]:
    """A session or a socket inherited over fork crashes; only `process.interpreter` starts processes."""
    for line, name in source.uses():
        if name in FORKS:
            yield Violation(source.path, line, f"uses {name}")
        inner = name.removeprefix("multiprocessing.")
        if inner != name and not any(
            within(inner, allowed) or within(allowed, inner) for allowed in ALLOWED_MULTIPROCESSING
        ):
            yield Violation(source.path, line, f"uses {name}; start a process.interpreter.Interpreter")
    for node in source.calls():
        if within(source.dotted(node.func) or "", "subprocess") and source.path not in STARTS:
            yield Violation(source.path, node.lineno, "starts a process; take process.interpreter.Interpreter")


def engine_knows_no_stage(source: Source) -> Iterator[Violation]:
    """The arrow goes stages -> parallel_infer, never back; the engine starts stages by name."""
    if source.path.startswith("parallel_infer/"):
        for line, name in source.imports():
            if within(name, "stages"):
                yield Violation(source.path, line, f"imports {name}")


def foreign_things_have_a_home(source: Source) -> Iterator[Violation]:
    """One file imports zmq (and the client's), one shared memory, few ONNX Runtime."""
    for line, name in source.imports():
        for module, homes in HOMES.items():
            if within(name, module) and not any(fnmatchcase(source.path, home) for home in homes):
                yield Violation(source.path, line, f"imports {name}, which belongs in {', '.join(homes)}")


def only_public_names_are_tested(source: Source) -> Iterator[Violation]:
    """A test that reaches for private names breaks with every change inside, and shows nothing that people rely on."""
    for node in source.nodes():
        if isinstance(node, ast.Attribute) and is_private(node.attr) and not is_own(node.value):
            yield Violation(source.path, node.lineno, f"uses .{node.attr}")
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                if is_private(name.name):
                    yield Violation(source.path, node.lineno, f"imports {name.name}")
        elif isinstance(node, ast.Call) and called(node) in PATCHES:
            for given in node.args[:2]:  # a path, or an object and a name
                if is_text(given) and is_private(given.value.rpartition(".")[2]):
                    yield Violation(source.path, node.lineno, f"patches {given.value}")


def every_test_asserts(source: Source) -> Iterator[Violation]:
    """A test says what has to be, by itself or by a function of the tests."""
    for name, line, calls in functions(source.tree):
        if name.startswith("test_") and not calls & checks():
            yield Violation(source.path, line, f"{name} asserts nothing")


def functions(tree: ast.Module) -> list[tuple[str, int, set[str]]]:
    """The name and line of every function, and what it calls; `assert` for an assertion."""
    return [
        (
            node.name,
            node.lineno,
            {"assert" if isinstance(inner, ast.Assert) else called(inner) for inner in ast.walk(node)},
        )
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


@functools.cache
def checks() -> frozenset[str]:
    """The names of functions that assert something: of the tests, and of the libraries that they use."""
    paths = Path(__file__).parents[1].rglob("*.py")
    known = [function for path in paths for function in functions(ast.parse(path.read_text()))]
    found = {"assert", *CHECKS}
    while more := {name for name, _, calls in known if name not in found and calls & found}:
        found |= more
    return frozenset(found)


def called(node: ast.AST) -> str:
    """The last name of what is called; empty where nothing is."""
    function = node.func if isinstance(node, ast.Call) else None
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC_ANYWAY


def is_own(node: ast.AST) -> bool:
    """Whether it is an object of the class that is written here."""
    own = isinstance(node, ast.Name) and node.id in ("self", "cls")
    return own or (isinstance(node, ast.Call) and called(node) == "super")


RULES: tuple[Rule, ...] = (
    nothing_is_unpickled,
    pipes_carry_bytes,
    views_pin_their_mapping,
    processes_are_spawned,
    engine_knows_no_stage,
    foreign_things_have_a_home,
)
TEST_RULES: tuple[Rule, ...] = (only_public_names_are_tested, every_test_asserts)
