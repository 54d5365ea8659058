"""What vLLM tells its stat loggers, put into an engine's figures. Does not import vLLM."""

from __future__ import annotations

from typing import Any

from .stats import EngineStats


def take_scheduler_stats(stats: EngineStats, scheduler: Any) -> None:
    """``scheduler`` is vLLM's ``SchedulerStats`` of one step."""
    stats.gauges["vllm:num_requests_running"] = scheduler.num_running_reqs
    stats.gauges["vllm:num_requests_waiting"] = scheduler.num_waiting_reqs + stats.held_back
    stats.gauges["vllm:kv_cache_usage_perc"] = scheduler.kv_cache_usage
    speculation = getattr(scheduler, "spec_decoding_stats", None)
    if speculation is not None:
        for name in ("num_drafts", "num_draft_tokens", "num_accepted_tokens"):
            stats.count(f"vllm:spec_decode_{name}_total", getattr(speculation, name))


def take_iteration_stats(stats: EngineStats, step: Any) -> None:
    """``step`` is vLLM's ``IterationStats``."""
    by_source = getattr(step, "prompt_token_stats", None)  # 0.16 on; before, one number
    stats.count("vllm:prompt_tokens_total", by_source.total if by_source is not None else step.num_prompt_tokens)
    stats.count("vllm:generation_tokens_total", step.num_generation_tokens)
    stats.count("vllm:num_preemptions_total", step.num_preempted_reqs)
    stats.histograms["vllm:time_to_first_token_seconds"].observe(step.time_to_first_tokens_iter)
    between = getattr(step, "inter_token_latencies_iter", None)  # 0.11 on; before, under the older name
    stats.histograms["vllm:inter_token_latency_seconds"].observe(
        step.time_per_output_tokens_iter if between is None else between
    )
    for finished in step.finished_requests:
        stats.count("vllm:request_success_total", 1, (("finished_reason", str(finished.finish_reason)),))
        stats.histograms["vllm:e2e_request_latency_seconds"].observe([finished.e2e_latency])
        stats.histograms["vllm:request_queue_time_seconds"].observe([finished.queued_time])
        stats.histograms["vllm:request_prompt_tokens"].observe([finished.num_prompt_tokens])
        stats.histograms["vllm:request_generation_tokens"].observe([finished.num_generation_tokens])
