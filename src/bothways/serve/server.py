"""uvicorn around the app, and how it stops: at once for new connections, after its work for those that wait."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Generator
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from bothways.errors import ConfigError
from bothways.serve.app import App
from bothways.serve.gate import Gate
from bothways.serve.problems import problem_response

GRACE_S = 0.5  # for the next request on connections that are kept open; each is closed after its answer


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any free one.

    Raises:
        ConfigError: the port is taken or not allowed, or the host is none of this machine's, or no name at all.
    """
    listening = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()  # two can be bound to a port as long as neither listens
    except UnicodeError:  # a part of the name is empty or longer than a name's may be
        raise ConfigError(f"{host!r} is no name of a host; try --host 127.0.0.1") from None
    except OSError as error:
        if listening is not None:
            listening.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is taken; give another by --port, or stop what listens there") from None
        if error.errno == errno.EACCES:
            raise ConfigError(f"port {port} is not allowed to you; give one above 1023 by --port") from None
        raise ConfigError(f"can't listen on {host} port {port}: {error.strerror}; try --host 127.0.0.1") from None
    return listening


class Connection(H11Protocol):
    """uvicorn's connection, closed if it is one too many, or if a request's head does not come in time.

    uvicorn's own timer begins with an answer and ends with the first byte after it: whoever sends nothing, or a head
    without an end, could hold a connection for ever.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._gate = cast(Gate, config.app)
        self._head: asyncio.TimerHandle | None = None  # runs while one is awaited
        self._sent: asyncio.TimerHandle | None = None  # runs while the client has not taken what was sent to it

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Keep it, if there are not too many."""
        super().connection_made(transport)
        most = self._gate.limits.max_connections
        if len(self.connections) <= most:
            self._await_head()
            return
        self._gate.metrics.requests.labels("other", "503").inc()
        transport.write(_full(most))
        transport.close()

    def data_received(self, data: bytes) -> None:
        """Between two requests a head is awaited from its first byte on; once it has come, it is not."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()
        else:
            self._await_no_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._await_no_head()
        self._await_no_taking()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not take its answer as fast as it is given: it has time as long as it takes some of it."""
        super().pause_writing()
        self._await_taking()

    def resume_writing(self) -> None:
        """It has taken most of it."""
        self._await_no_taking()
        super().resume_writing()

    def _await_head(self) -> None:
        """Further bytes don't give it more time."""
        if self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(self._gate.limits.head_s, self.transport.close)

    def _await_taking(self) -> None:
        left = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() < left:
                self._await_taking()
            else:
                self.transport.abort()

        self._sent = self.loop.call_later(self._gate.limits.send_s, look)

    def _await_no_taking(self) -> None:
        if self._sent is not None:
            self._sent.cancel()
            self._sent = None

    def _await_no_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


def _full(most: int) -> bytes:
    """What a connection too many is told, whatever it would have asked."""
    message = f"{most:,} connections are open, as many as are kept; try again in 1 s"
    answer = problem_response(503, message, {"Retry-After": "1", "Connection": "close"})
    head = b"".join(b"%s: %s\r\n" % header for header in answer.raw_headers)
    return b"HTTP/1.1 503 Service Unavailable\r\n" + head + b"\r\n" + bytes(answer.body)


class Server(uvicorn.Server):
    """uvicorn's, which ends with exit code 0 after a signal, and drains before it closes."""

    def __init__(self, app: App) -> None:
        self.application = app
        config = uvicorn.Config(
            app.gate,
            http=Connection,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            backlog=2048,
            timeout_keep_alive=20,
            timeout_graceful_shutdown=max(int(app.limits.drain_s), 1),
        )
        super().__init__(config)
        self._asked = 0

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """SIGTERM and SIGINT stop the server; unlike uvicorn's, they are not raised again, so the exit code is ours."""
        if threading.current_thread() is not threading.main_thread():
            yield  # whoever runs a server in a thread stops it by `should_exit`
            return
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._ask)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def _ask(self) -> None:
        self._asked += 1
        self.application.stop()
        if self._asked > 1:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, answer what comes on open connections for a moment, then wait for what is in flight."""
        self.application.stop()
        await self._stop_listening(sockets or [])
        if not self.force_exit:
            await asyncio.sleep(GRACE_S)
        await super().shutdown(sockets)

    @property
    def whole(self) -> bool:
        """Whether everything in flight was answered before the end."""
        return not (self.force_exit or self.application.gate.cut)

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Close the door behind the last one in line: what the system has connected, but we have not yet accepted,
        would be reset when the socket closes, though its request may have been sent.
        """
        loop = asyncio.get_running_loop()
        last = [one.dup() for one in sockets]
        for one in last:
            one.listen(0)  # from here on the system connects no more than one ahead
            one.setblocking(False)
        for server in self.servers:
            server.close()
        waiting: list[socket.socket] = []
        for one in last:
            with contextlib.suppress(BlockingIOError), one:
                while True:
                    waiting.append(one.accept()[0])

        def protocol() -> asyncio.Protocol:
            state = {"server_state": self.server_state, "app_state": self.lifespan.state}
            return self.config.http_protocol_class(config=self.config, **state)  # pyright: ignore

        for connection in waiting:
            await loop.connect_accepted_socket(protocol, connection)


def run(app: App, listening: socket.socket) -> int:
    """Serve until a signal; 0 when everything in flight was answered, 1 when the deadline or a second signal cut it."""
    server = Server(app)
    asyncio.run(server.serve([listening]))
    if not server.whole:
        os._exit(1)  # a thread may hang in the model, and would keep the process alive
    if app.computing:  # for nobody any longer; Python can't end under a thread that is in the model
        os._exit(0)
    return 0
