"""vLLM's metrics that are not here, and why: a reader of this list can tell a gap from a mistake."""

NO_SLEEP = "there is no sleep mode"
NO_TRANSFER = "keys and values are computed here or found in the cache, never fetched from elsewhere"
NO_MULTIMODAL = "the models are text models"
NO_BLOCK_HISTORY = "the cache's blocks are not followed one by one"
NO_ESTIMATES = "work is not estimated while serving"
NO_SPECULATION = "there is no speculative decoding yet"

ABSENT: dict[str, str] = {
    "vllm:num_requests_kv_fetch_by_stage": NO_TRANSFER,
    "vllm:external_prefix_cache_queries_total": NO_TRANSFER,
    "vllm:external_prefix_cache_hits_total": NO_TRANSFER,
    "vllm:mm_cache_queries_total": NO_MULTIMODAL,
    "vllm:mm_cache_hits_total": NO_MULTIMODAL,
    "vllm:engine_sleep_state": NO_SLEEP,
    "vllm:sleep_mode_operation_duration_seconds": NO_SLEEP,
    "vllm:sleep_mode_operations_in_flight": NO_SLEEP,
    "vllm:lora_requests_info": "there are no adapters yet",
    "vllm:corrupted_requests_total": "logits are not searched for NaN",
    "vllm:watermark_requests_total": "texts are not watermarked",
    "vllm:spec_decode_num_drafts_total": NO_SPECULATION,
    "vllm:spec_decode_num_draft_tokens_total": NO_SPECULATION,
    "vllm:spec_decode_num_accepted_tokens_total": NO_SPECULATION,
    "vllm:spec_decode_num_accepted_tokens_per_pos_total": NO_SPECULATION,
    "vllm:estimated_flops_per_gpu_total": NO_ESTIMATES,
    "vllm:estimated_read_bytes_per_gpu_total": NO_ESTIMATES,
    "vllm:estimated_write_bytes_per_gpu_total": NO_ESTIMATES,
    "vllm:tool_call_parser_invocations_total": "tool calls are not parsed yet",
    "vllm:kv_block_lifetime_seconds": NO_BLOCK_HISTORY,
    "vllm:kv_block_idle_before_evict_seconds": NO_BLOCK_HISTORY,
    "vllm:kv_block_reuse_gap_seconds": NO_BLOCK_HISTORY,
}
"""Name on the wire -> why it is not here. Families of features that are not here (`vllm:nixl_*`, ...) are left out."""
