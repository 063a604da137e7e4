"""Environment variables that must be set before torch is first imported, in whichever process that is."""

import os
from collections.abc import Mapping

KEY_VARIABLES = {"api_key": "HEADRACE_API_KEY", "admin_key": "HEADRACE_ADMIN_KEY"}
"""Setting of the server -> where it may be given, unseen by the machine's other users; the engine has no use for it."""


def engine_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with what is missing added; what the user set stays, but for the server's keys.

    Passive waiting gives the cores back between steps: with active waiting, OpenMP's threads spin on the cores that
    the HTTP process needs.
    """
    others = {name: value for name, value in environment.items() if name not in KEY_VARIABLES.values()}
    return {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(num_cores()), **others}


def prepare_this_process() -> None:
    """Set the same here, for a command that runs the engine in its own process."""
    os.environ.update(engine_environment(os.environ))


def num_cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
