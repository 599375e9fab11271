// Package perfagent calls a perfagent, which measures LLM inference engines.
//
//	client, err := perfagent.Dial(ctx, "127.0.0.1:8002")
//	answer, err := client.CollectMetrics(ctx, &pb.CollectMetricsRequest{InstanceId: "vllm-1"})
//
// A [Client] has each RPC of the contract as a method, with requests and answers as the package
// perfagentv1 defines them. Streams and pages are iterators. What the contract says of an RPC holds by
// itself: its deadline, unless the context has one; whether a failed call is repeated; a request_id for
// what changes something. Errors are of type [*Error].
//
// A field that is nil was not measured, and never means zero: read optional fields themselves, or through
// [OrNaN], since their getters answer 0 for nil.
package perfagent

import (
	"context"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

// Client calls an agent. It may be used by many goroutines at once, and one is enough for a program.
//
// The clients of the services are embedded. Where the Client has a method of its own beside theirs, it is
// the better one: [Client.WatchMetrics], [Client.WatchBottlenecks], [Client.BatchCollectMetrics], [Client.ListInstances],
// [Client.WatchWorkflow], [Client.WatchWorkflows], [Client.ListWorkflows], [Client.ListConfigSnapshots].
type Client struct {
	pb.AgentServiceClient
	pb.AnalysisServiceClient
	pb.InstanceServiceClient
	pb.MetricsServiceClient
	pb.OptimizationServiceClient
	pb.WebhookServiceClient
	pb.WorkflowServiceClient

	conn   *grpc.ClientConn
	policy policy
}

// How long Dial waits for an agent.
const dialTimeout = 5 * time.Second

// Dial connects to an agent and asks it who it is, so that a wrong address, certificate or token shows at once.
//
// The address is HOST:PORT, http://HOST:PORT or https://HOST:PORT; empty, it is PERFAGENT_SERVER or else
// 127.0.0.1:8002. HOST:PORT means https where an option says anything about TLS, and http where none does.
func Dial(ctx context.Context, address string, options ...Option) (*Client, error) {
	client, err := New(address, options...)
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if _, err := client.GetAgentInfo(asking, &pb.GetAgentInfoRequest{}); err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// New makes a client that connects with its first call. The address is as for [Dial].
func New(address string, options ...Option) (*Client, error) {
	settings, err := settingsOf(address, options)
	if err != nil {
		return nil, fmt.Errorf("perfagent: %w", err)
	}
	client := &Client{policy: settings.policy}
	// ours come first, so that those of the caller see each attempt
	dial := append([]grpc.DialOption{
		grpc.WithChainUnaryInterceptor(client.policy.unary),
		grpc.WithChainStreamInterceptor(stream),
	}, settings.dial...)
	client.conn, err = grpc.NewClient(settings.target, dial...)
	if err != nil {
		return nil, fmt.Errorf("perfagent: %w", err)
	}
	client.AgentServiceClient = pb.NewAgentServiceClient(client.conn)
	client.AnalysisServiceClient = pb.NewAnalysisServiceClient(client.conn)
	client.InstanceServiceClient = pb.NewInstanceServiceClient(client.conn)
	client.MetricsServiceClient = pb.NewMetricsServiceClient(client.conn)
	client.OptimizationServiceClient = pb.NewOptimizationServiceClient(client.conn)
	client.WebhookServiceClient = pb.NewWebhookServiceClient(client.conn)
	client.WorkflowServiceClient = pb.NewWorkflowServiceClient(client.conn)
	return client, nil
}

// Conn is the connection, for other services of the agent such as grpc.health.v1.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// Close ends all calls, watches too, and the connection.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) closed() bool { return c.conn.GetState() == connectivity.Shutdown }

// OrNaN is an optional value of a measurement, or NaN where it was not measured.
func OrNaN(value *float64) float64 {
	if value == nil {
		return math.NaN()
	}
	return *value
}

// Settings are settings of an engine for a request, by name or launch flag; nil for one that is not set, or whose flag is to
// be taken away. A value that is no number, text, bool or nil is an error.
func Settings(settings map[string]any) (*structpb.Struct, error) {
	return structpb.NewStruct(settings)
}
