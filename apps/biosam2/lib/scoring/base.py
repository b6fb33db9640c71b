"""What the app's scoring methods share: options that are checked, and manners."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod

from lib.engine.predictor_pool import PredictorPool
from lib.scoring.options import ScoringOptions, read_options
from lib.scoring.process import give_way, is_own_process
from lib.settings import Settings

T = TypeVar("T", bound=ScoringOptions)

# A scoring looks at each slice once: what it keeps of one is for the boxes that are drawn around its objects.
_EMBEDDINGS_MB = 128


@runtime_checkable
class SharedDatastore(Protocol):
    """A datastore for whose lock other processes wait, such as the app's own folder."""

    def write_by(self, thread: Executor) -> None:
        """Has one thread do all that is done under the lock."""


class Scoring(ScoringMethod, Generic[T]):
    """A scoring method of the app.

    Args:
        name: that clients call it.
        description: for people.
        settings: of the app.
        engines: which weights are in service, and the folder of their scores.
        kind: of its options.
    """

    def __init__(
        self, name: str, description: str, settings: Settings, engines: PredictorPool, kind: type[T]
    ):
        super().__init__(description)
        self.name = name
        self._settings = settings
        self._engines = engines
        self._kind = kind

    def info(self) -> dict[str, Any]:
        """What ``/info/`` shows, with the options and their defaults."""
        return {**super().info(), "config": self._kind().model_dump()}

    def options(self, request: Mapping[str, Any]) -> T:
        """The options of a request.

        Raises:
            EvaluationError: naming what is wrong with them.
            DeviceError: for a device that does not exist here.
        """
        return read_options(self._kind, request)

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Scores. MONAI Label calls it in a process of its own, which it kills to stop the scoring.

        Whatever was scored before it was killed is kept, and the next call goes on from there.

        Args:
            request: the options that the client changed.
            datastore: whose images are scored.

        Returns:
            What was done, in plain JSON.
        """
        options, engines = self.options(request), self._engines
        if is_own_process():
            urgent = give_way(self._settings.threads)
            if isinstance(datastore, SharedDatastore):
                datastore.write_by(urgent)
            kept = min(_EMBEDDINGS_MB, self._settings.embedding_cache_mb)
            settings = self._settings.model_copy(update={"embedding_cache_mb": kept})
            engines = PredictorPool(settings, engines.registry.folder)
        return self.score(options, datastore, engines)

    @abstractmethod
    def score(self, options: T, datastore: Datastore, engines: PredictorPool) -> dict[str, Any]:
        """Scores the images of a datastore.

        Args:
            options: of the request.
            datastore: whose images are scored.
            engines: those of the server, or leaner ones in a process of its own.
        """
