"""Engines of this process that hold memory of a device, for those who find it taken."""

import gc

import torch

from headrace.engine.loaded import LoadedEngine


def open_models(device: torch.device) -> tuple[str, ...]:
    """The names of the models whose engines on `device` are not closed.

    They are found among all objects that there are, so that nothing has to keep a list; that takes some 50 ms.
    """
    found = [each for each in gc.get_objects() if type(each) is LoadedEngine]
    return tuple(each.config.model for each in found if each.holds(device))
