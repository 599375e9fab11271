"""Says what holds an engine back: detect_bottlenecks.py URL [SECONDS]"""

import sys

import perfagent

url, seconds = sys.argv[1], float((sys.argv + ["20"])[2])
with perfagent.Client() as client:
    metrics = client.collect_metrics("vllm-1", metrics_url=url, window=seconds).measurement
    found = client.detect_bottlenecks("vllm-1", metrics)
print(found.headline)
for b in found.bottlenecks:
    kind = perfagent.BottleneckType.Name(b.type).removeprefix("BOTTLENECK_TYPE_")
    print(f"{kind} ({perfagent.Severity.Name(b.severity).removeprefix('SEVERITY_')})")
    print(f"  {b.description}")
    print(f"  Recommendation: {b.recommendation}")
