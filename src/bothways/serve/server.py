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

import uvicorn

from bothways.errors import ConfigError
from bothways.serve.app import App

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


class Server(uvicorn.Server):
    """uvicorn's, which ends with exit code 0 after a signal, and drains before it closes."""

    def __init__(self, app: App) -> None:
        self.application = app
        config = uvicorn.Config(
            app.gate,
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
    return 0
