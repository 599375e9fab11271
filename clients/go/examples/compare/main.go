// Says what a change did to an instance that the agent watches.
//
//	go run ./examples/compare vllm-1
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
	collect := func() *pb.Measurement {
		answer, err := client.CollectMetrics(context.Background(), &pb.CollectMetricsRequest{InstanceId: os.Args[1]})
		if err != nil {
			log.Fatal(err)
		}
		return answer.GetMeasurement()
	}
	baseline := collect()
	fmt.Println("Change a setting, wait until the window has only what came after, and press Enter.")
	fmt.Scanln()
	answer, err := client.CompareMetrics(context.Background(), &pb.CompareMetricsRequest{Baseline: baseline, Candidate: collect()})
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range answer.GetComparisons() {
		fmt.Printf("%-45s %6.3f %s\n", c.Name, perfagent.OrNaN(c.Ratio), c.Explanation)
	}
}
