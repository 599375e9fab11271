"""Measures an engine before and after a change: compare_before_and_after.py URL [SECONDS]"""

import sys

import perfagent

url, seconds = sys.argv[1], float((sys.argv + ["60"])[2])
with perfagent.Client() as client:
    before = client.collect_metrics("vllm-1", metrics_url=url, window=seconds).measurement
    input("Change it, warm it up, and press Enter ")
    after = client.collect_metrics("vllm-1", metrics_url=url, window=seconds).measurement
    compared = client.compare_metrics(before, after)
for each in compared.comparisons:
    verdict = perfagent.ComparisonVerdict.Name(each.verdict).removeprefix("COMPARISON_VERDICT_")
    print(f"{each.name}: {verdict}", f"x{each.ratio:.2f}" if each.HasField("ratio") else each.reason)
for caution in compared.cautions:
    print(f"Note: {caution.message}")
