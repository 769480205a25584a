"""The secrets and the secret headers of one endpoint, from files that are read again when they change.

No sentence and no log line may show what a file holds.
"""

from __future__ import annotations

import asyncio

import structlog

from workers.actions.signing import read_secret
from workers.errors import Misconfigured
from workers.settings import secret_files
from workers.settings.action_sections import Endpoint, header_values

log = structlog.get_logger(__name__)

LOOK_S = 2.0
"""How often the files are read. Kubernetes itself takes up to a minute to bring a changed secret into a pod."""


class Secrets:
    """What the files of one endpoint hold now.

    Raises:
        Misconfigured: at the start a file cannot be used. Later the values before stay in use, and the log says so.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.keys: tuple[bytes, ...] = ()
        """The keys that sign, the current one first."""
        self.headers: dict[str, str] = {}
        """The headers of each call."""
        self._failure = ""
        try:
            self.read()
        except ValueError as error:
            raise Misconfigured(f"actions.endpoints, {endpoint.name}: {error}") from None

    def read(self) -> bool:
        """Read all files, and return whether anything changed. Blocks for the file system.

        Raises:
            ValueError: a file cannot be used; nothing has changed then.
        """
        keys = []
        for file in self._endpoint.secret_files:
            text = secret_files.read(file)
            try:
                keys.append(read_secret(text))
            except ValueError as error:
                raise ValueError(f"the secret in {file} {error}") from None
        before = self.keys, self.headers
        self.keys, self.headers = tuple(keys), header_values(self._endpoint)
        return before != (self.keys, self.headers)

    async def watch(self) -> None:
        """Read the files again every `LOOK_S`, until cancelled."""
        if not self._endpoint.secret_files and not self._endpoint.header_files:
            return
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if await asyncio.to_thread(self.read):
                    log.info("the secrets were read again: they changed", endpoint=self._endpoint.name)
                self._failure = ""
            except ValueError as error:
                if str(error) != self._failure:
                    self._failure = str(error)
                    log.error("the secrets before stay in use", endpoint=self._endpoint.name, reason=self._failure)
