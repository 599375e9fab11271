"""Changes a setting, and takes it back where throughput fell: change_and_roll_back.py INSTANCE NAME VALUE"""

import sys

import perfagent

instance, name, value = sys.argv[1:]
with perfagent.Client() as client:
    workflow = client.start_workflow(instance, workflow_type="config_change", changes={name: value}, wait=60)
    client.approve_workflow(workflow)
    workflow = client.wait_for_completion(workflow.workflow_id)  # settings from before are kept by the workflow itself
    ratios = {each.quantity: each.ratio for each in workflow.effects.quantities}
    improvement = ratios.get("generation_tokens_per_second", 1.0)
    print(f"{workflow.headline}\nThroughput improvement: {improvement * 100:.1f}%")
    if improvement < 1.0:
        client.rollback_workflow(workflow.workflow_id, note="throughput fell")
        print(client.wait_for_completion(workflow.workflow_id).headline)
