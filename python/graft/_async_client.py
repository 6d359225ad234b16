"""A client for `await`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from graft._aio import AsyncCalls
from graft._client import TIMEOUT_SECONDS, Client
from graft._machine import StateMachine

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from graft._units import Duration
    from graft.tls import TLS

S = TypeVar("S", bound=StateMachine)

_CLOSE_SECONDS = 5.0


class AsyncClient(AsyncCalls[S]):
    """A `Client` for `await`, from any asyncio event loop.

    ```python
    async with graft.AsyncClient(["10.0.0.1:7001", "10.0.0.2:7001"], Bank, tls=graft.TLS(...)) as client:
        await client.execute(Bank.deposit, "ann", 5)
    ```

    Cancelling a call does not take a command back.
    """

    def __init__(
        self,
        endpoints: str | Iterable[str],
        machine: type[S],
        *,
        timeout: Duration = TIMEOUT_SECONDS,
        tls: TLS | None = None,
        insecure: bool = False,
        session_ttl: Duration | None = None,
        cluster: str | None = None,
    ) -> None:
        """See `Client`."""
        client = Client(
            endpoints,
            machine,
            timeout=timeout,
            tls=tls,
            insecure=insecure,
            session_ttl=session_ttl,
            cluster=cluster,
        )
        super().__init__(client, client._seconds, client._reading)
        self._client = client

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The addresses that it was given."""
        return self._client.endpoints

    async def close(self, timeout: Duration = _CLOSE_SECONDS) -> None:
        """See `Client.close`."""
        self._flush()
        await asyncio.to_thread(self._client.close, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._client).replace("graft.Client", "graft.AsyncClient", 1)
