"""The digest of a model: what tells whether two files, or one at two times, are the same.

It is the file's SHA-256, as `sha256sum` prints it. Where there are data files it is that of what
`sha256sum MODEL DATA...` prints, data files in the order of their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from parallel_infer.errors import ModelRejected
from parallel_infer.model_spec import ModelSpec

SHORT = 12  # characters of a digest that people are shown


def digest_of_parts(model: tuple[str, str], data: Iterable[tuple[str, str]]) -> str:
    """The digest of a model from the (name, SHA-256) of its file and of its data files."""
    parts = [model, *sorted(data)]
    if len(parts) == 1:
        return model[1]
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in parts).encode()).hexdigest()


def digest_of(path: Path, data: Iterable[str]) -> str:
    """The digest of a model as it lies on disk now; `data` are its data files, by their names beside it."""
    return digest_of_parts((path.name, _sha256(path)), [(name, _sha256(path.parent / name)) for name in data])


def check_unchanged(spec: ModelSpec) -> None:
    """Raises ModelRejected where the files of a model are not those that were looked into."""
    if not spec.digest:
        return  # made by hand, not from a file
    try:
        found = digest_of(Path(spec.path), spec.data_files)
    except OSError as error:
        raise ModelRejected(f"the file it was served from cannot be read ({error.strerror}); load it again") from error
    if found != spec.digest:
        raise ModelRejected(
            f"its file has changed since it was loaded (sha256 {spec.digest[:SHORT]} then, {found[:SHORT]} now); "
            "load it again, or put back what was there"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
