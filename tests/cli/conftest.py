"""The fixtures of `running_server`, for this folder's tests."""

from running_server import model_text, server, start_server, tokenizer_directory

__all__ = ["model_text", "server", "start_server", "tokenizer_directory"]
