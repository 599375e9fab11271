// Measures several engines at once, each result as it is ready.
//
//	go run ./examples/batch vllm-1=http://127.0.0.1:8000/metrics tgi-1=http://127.0.0.1:8080/metrics
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/perfagent/perfagent/clients/go/perfagent"
	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

func main() {
	batch := &pb.BatchCollectMetricsRequest{}
	for _, instance := range os.Args[1:] {
		id, url, _ := strings.Cut(instance, "=")
		batch.Requests = append(batch.Requests, &pb.CollectMetricsRequest{InstanceId: id, MetricsUrl: url})
	}
	client, err := perfagent.Dial(context.Background(), "")
	if err != nil {
		log.Fatal(err)
	}
	for result, err := range client.BatchCollectMetrics(context.Background(), batch) {
		if err != nil {
			log.Fatal(err)
		}
		if m := result.GetMeasurement(); m != nil {
			fmt.Printf("%s (%s): %.1f tokens/s\n", result.InstanceId, m.InstanceType, perfagent.OrNaN(m.ThroughputMetrics.TokensPerSecond))
		} else {
			fmt.Printf("%s: %s\n", result.InstanceId, result.GetFailure().GetMessage())
		}
	}
}
