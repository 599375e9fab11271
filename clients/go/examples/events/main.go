// Prints each event of all workflows from now on, a line each.
//
//	go run ./examples/events
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/perfagent/perfagent/clients/go/perfagent"
	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

func main() {
	ctx := context.Background()
	client, err := perfagent.Dial(ctx, "")
	check(err)
	// goes on where it was when the agent is started anew, or at another agent
	for message, err := range client.WatchWorkflows(ctx, &pb.WatchWorkflowsRequest{}) {
		check(err)
		event := message.GetEvent()
		fmt.Println(event.GetRevision(), event.GetWorkflowId(), event.GetType(), event.GetMessage())
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
