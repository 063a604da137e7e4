"""How many connections a process may have open."""

import contextlib
import resource


def allow_many_connections() -> None:
    """Raise the soft limit on open files to the hard one: each connection is a file, and 1,024 are soon used up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
