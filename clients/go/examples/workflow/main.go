// Plans a change, approves it, and looks on to its end.
//
//	go run ./examples/workflow vllm-1
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/perfagent/perfagent/clients/go/perfagent"
	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

func main() {
	ctx := context.Background()
	client, err := perfagent.Dial(ctx, "")
	check(err)
	started, err := client.StartWorkflow(ctx, &pb.StartWorkflowRequest{InstanceId: os.Args[1], WorkflowType: "optimization", Wait: durationpb.New(time.Minute)})
	check(err)
	workflow := started.GetWorkflow()
	fmt.Printf("Workflow created: %s\n  Status: %v\n  Plan: %s\n", workflow.GetWorkflowId(), workflow.GetStatus(), workflow.GetHeadline())
	if workflow.GetStatus() == pb.WorkflowStatus_WORKFLOW_STATUS_PENDING_APPROVAL {
		// the plan that was read, and no other one
		_, err = client.ApproveWorkflow(ctx, &pb.ApproveWorkflowRequest{WorkflowId: workflow.GetWorkflowId(), PlanEtag: workflow.GetPlan().GetEtag()})
		check(err)
		fmt.Println("Workflow approved")
	}
	// goes on when the agent is started anew
	for message, err := range client.WatchWorkflow(ctx, &pb.WatchWorkflowRequest{WorkflowId: workflow.GetWorkflowId()}) {
		check(err)
		fmt.Printf("%s: %s\n", message.GetEvent().GetType(), message.GetEvent().GetMessage())
	}
	ended, err := client.GetWorkflow(ctx, &pb.GetWorkflowRequest{WorkflowId: workflow.GetWorkflowId()})
	check(err)
	fmt.Printf("Workflow %v\n", ended.GetWorkflow().GetStatus())
	for _, effect := range ended.GetWorkflow().GetEffects().GetQuantities() {
		fmt.Printf("  %s %s: x%.2f (predicted x%.2f)\n", effect.GetQuantity(), effect.GetStatistic(), effect.GetRatio(), perfagent.OrNaN(effect.PredictedRatio))
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
