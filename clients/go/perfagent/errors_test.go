package perfagent_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/perfagent/perfagent/clients/go/internal/testagent"
	"github.com/perfagent/perfagent/clients/go/perfagent"
	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

func TestErrorsSayWhatTheAgentSays(t *testing.T) {
	agent := testagent.Start(t)
	client := dial(t, agent)

	_, err := client.CollectMetrics(t.Context(), &pb.CollectMetricsRequest{InstanceId: "nobody"})
	failed := typed(t, err)
	if failed.Code != codes.NotFound || !errors.Is(err, perfagent.ErrInstanceNotFound) || errors.Is(err, perfagent.ErrInstanceExists) {
		t.Errorf("another error: %v", err)
	}
	if status.Code(err) != codes.NotFound {
		t.Errorf("gRPC reads it as %v", status.Code(err))
	}
	contains(t, failed.Hint, "RegisterInstance")
	contains(t, err.Error(), "CollectMetrics: INSTANCE_NOT_FOUND: ")
	if strings.Count(err.Error(), failed.Hint) != 1 {
		t.Errorf("the hint is not there once: %v", err)
	}

	_, err = client.RegisterInstance(t.Context(), &pb.RegisterInstanceRequest{
		InstanceId: "No!", MetricsUrl: "ftp://x", ScrapeInterval: durationpb.New(time.Hour),
	})
	failed = typed(t, err)
	fields := map[string]bool{}
	for _, violation := range failed.Violations {
		fields[violation.Field] = violation.Description != ""
		contains(t, err.Error(), violation.Description)
	}
	if !fields["instance_id"] || !fields["metrics_url"] || !fields["scrape_interval"] {
		t.Errorf("violations: %v", failed.Violations)
	}

	// an engine that is not there
	once := dial(t, agent, perfagent.WithAttempts(1))
	_, err = once.CollectMetrics(t.Context(), inline("x", "http://127.0.0.1:1/metrics", 0))
	failed = typed(t, err)
	if !errors.Is(err, perfagent.ErrConnectFailed) || failed.RetryAfter != time.Second || failed.Metadata["step"] == "" {
		t.Errorf("another error: %#v", failed)
	}
}

func TestMessagesThatAreTooLarge(t *testing.T) {
	agent := testagent.Start(t)
	client := dial(t, agent)
	huge := &pb.ListInstancesRequest{Labels: map[string]string{"a": strings.Repeat("x", 5<<20)}}
	_, err := client.InstanceServiceClient.ListInstances(t.Context(), huge)
	if !errors.Is(err, perfagent.ErrRequestTooLarge) {
		t.Errorf("the agent took it: %v", err)
	}
	for _, err := range client.WatchMetrics(t.Context(), &pb.WatchMetricsRequest{Labels: huge.GetLabels()}) {
		if !errors.Is(err, perfagent.ErrRequestTooLarge) {
			t.Errorf("the agent took it: %v", err)
		}
	}

	small := dial(t, agent, perfagent.WithDialOptions(grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1000))))
	_, err = small.GetCapabilities(t.Context(), &pb.GetCapabilitiesRequest{})
	if failed := typed(t, err); failed.Code != codes.ResourceExhausted || failed.Reason != "" {
		t.Errorf("it was not too large: %v", err)
	}
	// the connection is as good as before
	must(small.GetAgentInfo(t.Context(), &pb.GetAgentInfoRequest{}))
}

func TestDeadlineEndsACall(t *testing.T) {
	agent, engine := testagent.Start(t), testagent.StartEngine(t)
	engine.Hang()
	client := dial(t, agent)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := client.CollectMetrics(ctx, inline("x", engine.URL, 0))
	if !errors.Is(err, context.DeadlineExceeded) || typed(t, err).Code != codes.DeadlineExceeded {
		t.Errorf("it did not end at its deadline: %v", err)
	}

	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	ended := false
	for _, err := range client.WatchMetrics(ctx, &pb.WatchMetricsRequest{}) {
		ended = errors.Is(err, context.DeadlineExceeded)
	}
	if !ended {
		t.Error("a watch did not end at its deadline")
	}
}

func TestCancellationEndsACallAndWhatTheAgentDoesForIt(t *testing.T) {
	// the agent itself would wait for longer than this test does
	agent, engine := testagent.StartWith(t, "[scrape]\ntimeout = \"5m\"\n"), testagent.StartEngine(t)
	engine.Hang()
	client := dial(t, agent)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := client.CollectMetrics(ctx, inline("x", engine.URL, 0))
		done <- err
	}()
	eventually(t, "the engine is asked", func() bool { return engine.Waiting() > 0 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("it was not cancelled: %v", err)
	}
	eventually(t, "nobody waits for the engine", func() bool { return engine.Waiting() == 0 })
}

func TestAddressesAndFilesThatCannotBe(t *testing.T) {
	t.Setenv("PERFAGENT_TOKEN", "pa_x")
	for address, part := range map[string]string{
		"agent":                      "no port",
		"ftp://agent:1":              "http://",
		"http://agent:1/api":         "more than host and port",
		"http://ann:secret@agent:1":  "cannot be read",
		"agent.example:8002":         "in the clear",
		"http://agent.example:8002/": "in the clear",
	} {
		_, err := perfagent.New(address)
		if err == nil {
			t.Errorf("%s was taken", address)
			continue
		}
		contains(t, err.Error(), part)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("shows a password: %v", err)
		}
	}
	for name, option := range map[string]perfagent.Option{
		"CA":       perfagent.WithCACert("/nowhere"),
		"pair":     perfagent.WithClientCert("/nowhere", "/nowhere"),
		"token":    perfagent.WithTokenFile("/nowhere"),
		"empty":    perfagent.WithToken(" \n"),
		"two":      perfagent.WithToken("pa_x\npa_y"),
		"attempts": perfagent.WithAttempts(0),
	} {
		if _, err := perfagent.New("127.0.0.1:1", option); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	for _, address := range []string{"", "https://agent.example:8002", "[::1]:8002", "localhost:8002"} {
		client, err := perfagent.New(address)
		check(t, err)
		client.Close()
	}
}

func TestDialSaysThatNobodyIsThere(t *testing.T) {
	_, err := perfagent.Dial(t.Context(), "127.0.0.1:1")
	failed := typed(t, err)
	if failed.Code != codes.Unavailable {
		t.Errorf("another error: %v", err)
	}
	contains(t, failed.Hint, "perfagent serve")
}

func typed(t *testing.T, err error) *perfagent.Error {
	t.Helper()
	var failed *perfagent.Error
	if !errors.As(err, &failed) {
		t.Fatalf("not an *Error: %v", err)
	}
	return failed
}
