"""Measures an engine: first_measurement.py URL"""

import sys

import perfagent
from perfagent import measured

with perfagent.Client() as client:
    metrics = client.collect_metrics("vllm-1", metrics_url=sys.argv[1]).measurement
print(f"Success total: {measured(metrics.request_metrics, 'success_total')}")
print(f"Throughput: {measured(metrics.throughput_metrics, 'tokens_per_second')} tokens/s")
print(f"KV cache: {measured(metrics.gpu_metrics, 'cache_usage_perc')} %")
