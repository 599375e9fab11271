"""Plans a change, approves it, and looks on to its end: run_a_workflow.py INSTANCE"""

import sys

import perfagent

with perfagent.Client() as client:
    workflow = client.start_workflow(sys.argv[1], workflow_type="optimization", wait=60)
    print(f"Workflow created: {workflow.workflow_id}")
    print(f"  Status: {perfagent.WorkflowStatus.Name(workflow.status).removeprefix('WORKFLOW_STATUS_')}")
    print(f"  Plan: {workflow.headline} ({len(workflow.optimizations)} optimizations)")
    if workflow.waiting_for.verbs[:1] == ["APPROVE"]:
        client.approve_workflow(workflow)  # the plan that was read, and no other one
        print("Workflow approved")
    with client.watch_workflow(workflow.workflow_id) as watch:  # goes on when the agent is started anew
        for message in watch:
            print(f"{message.event.type}: {message.event.message}", flush=True)
    workflow = client.get_workflow(workflow.workflow_id)
print(f"Workflow {perfagent.WorkflowStatus.Name(workflow.status).removeprefix('WORKFLOW_STATUS_')}")
for effect in workflow.effects.quantities:
    print(f"  {effect.quantity} {effect.statistic}: x{effect.ratio:.2f} (predicted x{effect.predicted_ratio:.2f})")
