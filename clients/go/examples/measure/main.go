// Measures an engine once.
//
//	go run ./examples/measure http://127.0.0.1:8000/metrics
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
	answer, err := client.CollectMetrics(context.Background(), &pb.CollectMetricsRequest{InstanceId: "vllm-1", MetricsUrl: os.Args[1]})
	if err != nil {
		log.Fatal(err)
	}
	m := answer.GetMeasurement()
	fmt.Printf("succeeded: %.0f requests\nthroughput: %.1f tokens/s\nKV cache: %.1f %%\n",
		perfagent.OrNaN(m.RequestMetrics.SuccessTotal), perfagent.OrNaN(m.ThroughputMetrics.TokensPerSecond), perfagent.OrNaN(m.GpuMetrics.CacheUsagePerc))
}
