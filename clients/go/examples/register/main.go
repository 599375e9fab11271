// Registers the instances of a list: lines of id, engine and metrics URL. Those that are known already stay as they are.
//
//	go run ./examples/register < instances.txt
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	for {
		instance := &pb.RegisterInstanceRequest{}
		if _, err := fmt.Fscanln(os.Stdin, &instance.InstanceId, &instance.InstanceType, &instance.MetricsUrl); err == io.EOF {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		_, err := client.RegisterInstance(context.Background(), instance)
		if err != nil && !errors.Is(err, perfagent.ErrInstanceExists) {
			log.Fatal(err)
		}
	}
}
