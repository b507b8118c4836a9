"""A service behind the edge that may hang: what does not answer in time is unavailable.

A service that is down refuses at once; one that hangs keeps every caller for its whole deadline,
until all places of the edge are taken and even hits are refused. So after a few calls in a row
without an answer only one at a time is let through, to find out whether the service is back; the
others are refused at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.process.logs import get_logger
from services.rpc.call import Call
from services.rpc.errors import DependencyUnavailableError, NoAnswerError

log = get_logger(__name__)

T = TypeVar("T")

_SUSPECT_AFTER = 3


class NotAskedError(DependencyUnavailableError):
    """A service that this one needs does not answer, so it was not asked. Try again shortly."""


class Behind:
    """Stands before the calls to one service.

    Args:
        name: the service's, for the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._unanswered = 0
        """Calls in a row."""
        self._is_probed = False

    @property
    def is_suspect(self) -> bool:
        """Whether the service seems to hang: it is better asked something small first."""
        return self._unanswered >= _SUSPECT_AFTER

    def check(self) -> None:
        """Raises NotAskedError while the service seems to hang and somebody looks already."""
        if self.is_suspect and self._is_probed:
            raise NotAskedError

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer of a call that has a deadline. The service's errors come through.

        Raises DependencyUnavailableError when there is no answer in time, whose outcome is unknown,
        and NotAskedError.
        """
        self.check()
        probes = self._is_probed = self.is_suspect
        try:
            answer = await call()
        except NoAnswerError as error:
            if _is_late():
                raise  # the caller's own time is over: that says nothing of the service
            self.hung()
            raise DependencyUnavailableError from error
        except Exception:
            self.answered()  # whatever it said
            raise
        finally:
            if probes:
                self._is_probed = False
        self.answered()
        return answer

    def hung(self) -> None:
        """Takes note of a call that got no answer in time."""
        self._unanswered += 1
        if self._unanswered == _SUSPECT_AFTER:
            log.warning("service_hangs", service=self._name)

    def answered(self) -> None:
        """Takes note of an answer."""
        if self.is_suspect:
            log.info("service_answers_again", service=self._name)
        self._unanswered = 0


def _is_late() -> bool:
    """Whether the call that is being served here has no time left."""
    call = Call.current()
    return call is not None and call.remaining_s() == 0
