"""One entry of the route table: what is answered, by what, to whom, and the shapes of both sides for /openapi.json."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from pydantic import BaseModel

from headrace.server.http import Exchange
from headrace.server.state import ServerState

Handler = Callable[[ServerState, Exchange], Awaitable[None]]


class Access(Enum):
    """Who may call: everybody, who has an API key (if there are any), or who may change the server."""

    PUBLIC = "public"
    KEY = "key"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Route:
    """`handler` answers `method` at `path`, whose last part may be `{name}`: the rest of the path, slashes included.

    `requests` are the bodies that are parsed, one of which a request must have; `answer` is a 200's body if it is
    JSON, `chunk` what each event of a stream holds. `statuses` are those besides 200 and what every route may give.
    """

    method: str
    path: str
    handler: Handler
    access: Access
    summary: str
    requests: tuple[type[BaseModel], ...] = ()
    answer: object = None
    chunk: object = None
    content_type: str = "application/json"
    statuses: tuple[int, ...] = ()
