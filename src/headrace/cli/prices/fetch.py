"""A provider's price list over HTTP, with the standard library: text line by line, or one JSON object."""

import http.client
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from headrace import __version__
from headrace.core.errors import ErrorKind, HeadraceError

_TIMEOUT_SECONDS = 30
_LARGEST_PAGE_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class PriceSource:
    """A provider's list. `origin` is the address that paths are added to; `key`, if it wants one, is never shown."""

    provider: str
    origin: str
    key: str = ""

    def lines(self, path: str) -> Iterator[str]:
        """The lines of a text. Raises `HeadraceError` if it cannot be had, also when it breaks off."""
        try:
            with self._open(self.origin + path) as answer:
                yield from io.TextIOWrapper(answer, encoding="utf-8", errors="replace", newline="")
                if getattr(answer, "length", None):  # what was announced and did not come; http.client ends in silence
                    raise ConnectionError("it broke off")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(error) from error

    def page(self, path: str) -> dict[str, object]:
        """A JSON object; `path` may be a whole address of the same host. Raises `HeadraceError` if it cannot be had."""
        url = self.origin + path if path.startswith("/") else path
        try:
            with self._open(url) as answer:
                found = json.loads(answer.read(_LARGEST_PAGE_BYTES))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(error) from error
        if not isinstance(found, dict):
            raise self._failed(ValueError("the answer is not a JSON object"))
        return found

    def _open(self, url: str) -> IO[bytes]:
        headers = {"User-Agent": f"headrace/{__version__}", **({"X-Goog-Api-Key": self.key} if self.key else {})}
        answer: IO[bytes] = urlopen(Request(url, headers=headers), timeout=_TIMEOUT_SECONDS)
        return answer

    def _failed(self, error: Exception) -> HeadraceError:
        if isinstance(error, HTTPError):
            reason = f"answered {error.code} {error.reason}"
            fix = "Check the API key" if self.key and error.code in (400, 401, 403) else "Try again later"
        else:
            reason = f"cannot be read: {getattr(error, 'reason', None) or error or type(error).__name__}"
            fix = f"Check the connection (and HTTPS_PROXY), or name a mirror: --from {self.provider.lower()}=URL"
        return HeadraceError(
            f"The price list of {self.provider} at {self.origin} {reason}", fix=fix, kind=ErrorKind.UNAVAILABLE
        )
