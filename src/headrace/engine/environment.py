"""Environment variables that change how an engine runs here, though nothing of it is asked for."""

from collections.abc import Mapping

import torch


def environment_warnings(device: torch.device, environment: Mapping[str, str]) -> list[str]:
    """What slows an engine on `device` down, a sentence each; variables of vLLM's own mean nothing here."""
    if device.type != "cuda" or environment.get("CUDA_LAUNCH_BLOCKING", "0") in ("", "0"):
        return []
    value = environment["CUDA_LAUNCH_BLOCKING"]
    return [
        f"CUDA_LAUNCH_BLOCKING={value} makes the host wait for every kernel; it is for debugging: leave it out, and"
        " restart the process"
    ]
