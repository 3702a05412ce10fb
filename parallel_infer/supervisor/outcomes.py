"""Who is told what has become of a model: the client that asked for it, or the log after a configuration was read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from parallel_infer.config.schema import ModelConfig
from parallel_infer.errors import BadInput, InferError
from parallel_infer.ipc.messages import Managed
from parallel_infer.supervisor.model_version import LoadedModel, ModelVersion
from parallel_infer.supervisor.outside import Outbox
from parallel_infer.supervisor.reload import Reload

log = logging.getLogger(__name__)


class Outcomes:
    """Answers management requests; `query` is None for what nobody but the configuration has asked for."""

    def __init__(self, gateway: Outbox) -> None:
        self._gateway = gateway
        self.reload: Reload | None = None  # the last one

    def begin_reload(self, models: Mapping[str, ModelConfig], leaving: Iterable[str]) -> Reload:
        """From now on what nobody has asked for belongs to this one."""
        self.reload = Reload(models, leaving)
        return self.reload

    def served(
        self, name: str, query: int | None, became: str, version: ModelVersion, broke: Sequence[str] = ()
    ) -> None:
        """A model that was to be loaded is served; `broke` are warnings about chains that cannot do with it."""
        if query is None and self.reload is not None:
            self.reload.note(name, became)
        self.tell(query, version.loaded(became, broke))

    def refused(self, name: str, query: int | None, error: Exception) -> None:
        """A model cannot be served as it was asked for."""
        if query is None and self.reload is not None:
            self.reload.refuse(name, str(error))  # said once, with what became of the others
        else:
            log.warning("%s", error)
        self.tell(query, error)

    def found_no_room(self, name: str, query: int | None, error: Exception) -> None:
        """A model cannot be loaded, which may be for want of room: a reload tries it again when others have closed."""
        if query is None and self.reload is not None and self.reload.postpone(name):
            log.info("%s; it is tried again when the models that are to go have closed", error)
        else:
            self.refused(name, query, error)

    def tell(self, query: int | None, outcome: LoadedModel | Mapping[str, object] | Exception) -> None:
        """Answer a client's management request."""
        if query is None:
            return
        if isinstance(outcome, Exception):
            code = outcome.code if isinstance(outcome, InferError) else BadInput.code
            self._gateway.send(Managed(query, code, str(outcome), _result({})))
        else:
            self._gateway.send(Managed(query, "", "", _result(outcome)))


def _result(outcome: LoadedModel | Mapping[str, object]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(outcome))
