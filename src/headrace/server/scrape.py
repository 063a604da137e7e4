"""GET /metrics: always answers, also while the engine loads, is dead or comes back."""

from headrace.server.http import Exchange
from headrace.server.state import ServerState
from headrace.wire.messages import EngineStats

ENGINE = "0"
"""The label `engine` of vLLM's metrics: which of several engines behind one front. There is one here."""


async def metrics(state: ServerState, exchange: Exchange) -> None:
    """Every metric in Prometheus' text format, or in OpenMetrics if the client accepts that."""
    state.metrics.show(_engine_gauges(state.client.stats) | _server_gauges(state))
    accept = (exchange.header(b"accept") or b"").decode("latin-1")
    body, content_type = state.metrics.render((state.served_names[0], ENGINE), accept)
    await exchange.answer(body, content_type=content_type.encode())


def _engine_gauges(stats: EngineStats) -> dict[str, float]:
    used = stats.num_blocks - stats.num_free_blocks
    return {
        "vllm:num_requests_running": stats.num_running,
        "vllm:num_requests_waiting": stats.num_waiting,
        "vllm:kv_cache_usage_perc": used / stats.num_blocks if stats.num_blocks else 0.0,
        "headrace:kv_cache_blocks": stats.num_blocks,
        "headrace:kv_cache_free_blocks": stats.num_free_blocks,
    }


def _server_gauges(state: ServerState) -> dict[str, float]:
    client, admission = state.client, state.admission
    return {
        "headrace:engine_up": int(client.alive),
        "headrace:engine_ready": int(client.ready),
        "headrace:engine_late_seconds": client.seconds_late,
        "headrace:open_sequences": client.num_open_sequences,
        "headrace:queued_requests": admission.num_waiting,
        "headrace:queued_tokens": admission.num_waiting_tokens,
    }
