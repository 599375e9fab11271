// Says what to change, and what that is predicted to do.
//
//	go run ./examples/recommend http://127.0.0.1:8000/metrics
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/perfagent/perfagent/clients/go/perfagent"
	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

func main() {
	client, err := perfagent.Dial(context.Background(), "")
	if err != nil {
		log.Fatal(err)
	}
	// what the engine does not tell of itself
	config, err := perfagent.Settings(map[string]any{"max_batch_size": 32, "quantization": nil})
	if err != nil {
		log.Fatal(err)
	}
	answer, err := client.RecommendOptimizations(context.Background(), &pb.RecommendOptimizationsRequest{InstanceId: "vllm-1", MetricsUrl: os.Args[1], CurrentConfig: config})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.GetHeadline())
	for _, o := range answer.GetOptimizations() {
		fmt.Printf("%v (%v)\n  %s\n", o.GetType(), o.GetPriority(), o.GetDescription())
		fmt.Printf("  Estimated improvement: %v\n  Risks: %v\n", o.GetEstimatedImprovement(), o.GetRisks())
	}
}
