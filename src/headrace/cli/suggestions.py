"""What somebody probably meant who typed a flag or a command that is not there."""

import difflib
from collections.abc import Collection

SURE = 0.8
"""How alike two spellings are before one is taken for the other."""

FLAGS_ELSEWHERE = {
    "-c": "--max-model-len",
    "-q": "--quantization",
    "-tp": "--tensor-parallel-size",
    "--chunked-prefill-size": "--max-num-batched-tokens",
    "--context-length": "--max-model-len",
    "--ctx-size": "--max-model-len",
    "--max-batch-prefill-tokens": "--max-num-batched-tokens",
    "--max-batch-size": "--max-num-seqs",
    "--max-concurrent-requests": "--max-num-seqs",
    "--max-running-requests": "--max-num-seqs",
    "--max-total-tokens": "--max-model-len",
    "--mem-fraction-static": "--gpu-memory-utilization",
    "--model-id": "--model",
    "--model-path": "--model",
    "--qps": "--request-rate",
    "--quantize": "--quantization",
    "--random-input": "--random-input-len",
    "--random-output": "--random-output-len",
    "--schedule-policy": "--scheduling-policy",
    "--served-model": "--served-model-name",
    "--tokenizer-path": "--tokenizer",
    "--tp": "--tensor-parallel-size",
    "--tp-size": "--tensor-parallel-size",
}
"""Flags of other servers and load generators, and of vLLM's short forms -> what they are called here."""

FLAGS_TO_LEAVE_OUT = {
    "--disable-frontend-multiprocessing": "the HTTP front and the engine are two processes, always",
    "--distributed-executor-backend": "there is one",
    "--enable-metrics": "metrics are a server's",
    "--enable-server-load-tracking": "/load is always there",
    "--middleware": "put a proxy before the server",
    "--num-warmups": "one request is sent before the load begins",
    "--output-tmp-dir": "the output is made beside its place",
    "--profile": "there is no profiler to start",
    "--ready-check-timeout-sec": "one request is sent before the load begins",
    "--response-role": "answers have the role assistant",
    "--tokenizer": "prompts are made of words of one token each, and the server counts",
}
"""Flags of vLLM that a command here does without -> why."""

COMMANDS_ELSEWHERE = {
    "batch": "run-batch",
    "benchmark": "bench",
    "complete": "chat",
    "launch": "serve",
    "load": "serve",
    "online": "serve",
    "run": "serve",
    "server": "serve",
    "start": "serve",
    "talk": "chat",
}
"""Commands of other programs, and what people try -> what they are called here."""


def meant_flag(typed: str, flags: Collection[str]) -> str | None:
    """The flag among `flags` that `typed` was meant to be, if there is one to be sure of."""
    known = FLAGS_ELSEWHERE.get(typed)
    if known in flags:
        return known
    close = difflib.get_close_matches(typed, flags, n=1, cutoff=SURE)
    return close[0] if close else _same_words(typed, flags)


def meant_command(typed: str, commands: Collection[str]) -> str | None:
    """The command among `commands` that `typed` was meant to be."""
    known = COMMANDS_ELSEWHERE.get(typed)
    if known in commands:
        return known
    close = difflib.get_close_matches(typed, commands, n=1)
    return close[0] if close else None


def _same_words(typed: str, flags: Collection[str]) -> str | None:
    """The only flag that has all of the typed words, or of whose words all were typed: --key for --api-key."""
    words = _words(typed)
    found = [flag for flag in flags if _words(flag) <= words or words <= _words(flag)]
    return found[0] if len(found) == 1 else None


def _words(flag: str) -> set[str]:
    return set(flag.strip("-").replace("_", "-").split("-"))
