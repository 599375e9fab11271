// Watches all instances of an agent, and goes on when that is started anew.
//
//	go run ./examples/watch
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/perfagent/perfagent/clients/go/perfagent"
	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

func main() {
	client, err := perfagent.Dial(context.Background(), "")
	if err != nil {
		log.Fatal(err)
	}
	for seen, err := range client.WatchMetrics(context.Background(), &pb.WatchMetricsRequest{View: pb.MeasurementView_MEASUREMENT_VIEW_BASIC}) {
		if err != nil {
			log.Fatal(err)
		}
		if m := seen.GetMeasurement(); m != nil {
			fmt.Printf("%s: %.1f tokens/s\n", seen.InstanceId, perfagent.OrNaN(m.ThroughputMetrics.TokensPerSecond))
			if perfagent.OrNaN(m.GpuMetrics.CacheUsagePerc) > 90 {
				fmt.Printf("%s: the KV cache is nearly full\n", seen.InstanceId)
			}
		} else if failure := seen.GetFailure(); failure != nil {
			fmt.Printf("%s: %s\n", seen.InstanceId, failure.GetMessage())
		}
	}
}
