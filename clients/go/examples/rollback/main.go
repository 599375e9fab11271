// Changes a setting, and takes it back where throughput fell.
//
//	go run ./examples/rollback vllm-1 max_num_seqs 64
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
	changes, err := perfagent.Settings(map[string]any{os.Args[2]: os.Args[3]})
	check(err)
	started, err := client.StartWorkflow(ctx, &pb.StartWorkflowRequest{InstanceId: os.Args[1], WorkflowType: "config_change", Changes: changes, Wait: durationpb.New(time.Minute)})
	check(err)
	id := started.GetWorkflow().GetWorkflowId()
	_, err = client.ApproveWorkflow(ctx, &pb.ApproveWorkflowRequest{WorkflowId: id, PlanEtag: started.GetWorkflow().GetPlan().GetEtag()})
	check(err)
	// settings from before are kept by the workflow itself
	workflow, err := client.WaitForCompletion(ctx, id)
	check(err)
	improvement := 1.0
	for _, effect := range workflow.GetEffects().GetQuantities() {
		if effect.GetQuantity() == "generation_tokens_per_second" {
			improvement = effect.GetRatio()
		}
	}
	fmt.Printf("%s\nThroughput improvement: %.1f %%\n", workflow.GetHeadline(), improvement*100)
	if improvement < 1 {
		_, err = client.RollbackWorkflow(ctx, &pb.RollbackWorkflowRequest{WorkflowId: id, Note: "throughput fell"})
		check(err)
		workflow, err = client.WaitForCompletion(ctx, id)
		check(err)
		fmt.Println(workflow.GetHeadline())
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
