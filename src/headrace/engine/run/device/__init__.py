"""Steps on a GPU: rows that live on the device, one upload a step, captured forward passes and sampling."""
