// Says what holds an engine back.
//
//	go run ./examples/detect http://127.0.0.1:8000/metrics
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
	metrics, err := client.CollectMetrics(context.Background(), &pb.CollectMetricsRequest{InstanceId: "vllm-1", MetricsUrl: os.Args[1]})
	if err != nil {
		log.Fatal(err)
	}
	found, err := client.DetectBottlenecks(context.Background(), &pb.DetectBottlenecksRequest{Measurement: metrics.GetMeasurement()})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(found.GetHeadline())
	for _, b := range found.GetBottlenecks() {
		fmt.Printf("%v (%v)\n  %s\n  Recommendation: %s\n", b.GetType(), b.GetSeverity(), b.GetDescription(), b.GetRecommendation())
	}
}
