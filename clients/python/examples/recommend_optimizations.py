"""Says what to change, and what that is predicted to do: recommend_optimizations.py URL [SECONDS]"""

import sys

import perfagent

url, seconds = sys.argv[1], float((sys.argv + ["20"])[2])
config = {"max_batch_size": 32, "quantization": None}  # what the engine does not tell of itself
with perfagent.Client() as client:
    answer = client.recommend_optimizations("vllm-1", metrics_url=url, window=seconds, current_config=config)
print(answer.headline)
for opt in answer.optimizations:
    kind = perfagent.OptimizationType.Name(opt.type).removeprefix("OPTIMIZATION_TYPE_")
    print(f"{kind} (Priority: {perfagent.OptimizationPriority.Name(opt.priority).removeprefix('OPTIMIZATION_PRIORITY_')})")
    print(f"  {opt.description}")
    print(f"  Estimated improvement: {dict(opt.estimated_improvement)}")
    print(f"  Risks: {', '.join(opt.risks)}")
