package perfagent_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/perfagent/perfagent/clients/go/internal/testagent"
	"github.com/perfagent/perfagent/clients/go/perfagent"
	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

func TestWatchGoesOnWhenTheAgentIsStartedAnew(t *testing.T) {
	agent, engine := testagent.Start(t), testagent.StartEngine(t)
	log, logged := newLog()
	client := dial(t, agent, log)
	register(t, client, "vllm-1", engine, nil)
	resumed := func() int { return strings.Count(logged.String(), "is resumed") }
	ended := 0
	// what was under way when the agent went is still told, so the log says when the watch goes on
	for range watchWindows(t, client, "vllm-1", 100) {
		switch {
		case resumed() < ended:
		case ended == 0:
			agent.Stop()
			agent.Restart()
			ended++
		case ended == 1:
			agent.Kill()
			agent.Restart()
			ended++
		default:
			contains(t, logged.String(), string(perfagent.ErrDraining))
			return
		}
	}
	t.Errorf("resumed %d times:\n%s", resumed(), logged)
}

func TestWatchGoesOnWhenAStreamHasLivedItsTime(t *testing.T) {
	agent, engine := testagent.StartWith(t, "[server]\nstream_lifetime = \"1s\"\n"), testagent.StartEngine(t)
	log, logged := newLog()
	client := dial(t, agent, log)
	register(t, client, "vllm-1", engine, nil)
	for range watchWindows(t, client, "vllm-1", 20) {
		if strings.Count(logged.String(), string(perfagent.ErrStreamLifetime)) >= 2 {
			return
		}
	}
	t.Errorf("it was not resumed:\n%s", logged)
}

func TestWatchesDoNotDisturbEachOther(t *testing.T) {
	agent, engine := testagent.Start(t), testagent.StartEngine(t)
	client := dial(t, agent)
	register(t, client, "a", engine, nil)
	register(t, client, "b", engine, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	first := make(chan struct{})
	go func() {
		var last error
		for message, err := range client.WatchMetrics(ctx, &pb.WatchMetricsRequest{InstanceIds: []string{"a"}}) {
			if last = err; err == nil && message.GetInstanceId() != "a" {
				t.Errorf("told of %s", message.GetInstanceId())
			}
			select {
			case first <- struct{}{}:
			case <-ctx.Done():
			}
		}
		ended <- last
	}()
	<-first
	for message := range watchWindows(t, client, "b", 4) {
		switch message {
		case 1:
			<-first
		case 2:
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("it ended with %v", err)
			}
		}
	}
}

func TestWatchEndsWithWhatCannotPass(t *testing.T) {
	agent, engine := testagent.Start(t), testagent.StartEngine(t)
	client := dial(t, agent)
	var errs []error
	for _, err := range client.WatchMetrics(t.Context(), &pb.WatchMetricsRequest{InstanceIds: []string{"nobody"}}) {
		errs = append(errs, err)
	}
	if len(errs) != 1 || !errors.Is(errs[0], perfagent.ErrInstanceNotFound) {
		t.Errorf("it ended with %v", errs)
	}

	// without an error when all that were named are gone
	register(t, client, "vllm-1", engine, nil)
	var events []pb.WatchEvent
	for message, err := range client.WatchMetrics(t.Context(), &pb.WatchMetricsRequest{InstanceIds: []string{"vllm-1"}}) {
		check(t, err)
		if len(events) == 0 {
			must(client.DeleteInstance(t.Context(), &pb.DeleteInstanceRequest{InstanceId: "vllm-1"}))
		}
		events = append(events, message.GetEvent())
	}
	if !slices.Contains(events, pb.WatchEvent_WATCH_EVENT_REMOVED) {
		t.Errorf("not told that it is gone: %v", events)
	}
}

func TestWatchEndsWhenTheClientIsClosed(t *testing.T) {
	client := dial(t, testagent.Start(t))
	time.AfterFunc(100*time.Millisecond, func() { client.Close() })
	ended := false
	for _, err := range client.WatchMetrics(t.Context(), &pb.WatchMetricsRequest{}) {
		ended = err != nil
	}
	if !ended {
		t.Error("it ended without an error")
	}
}

// watchWindows counts windows of an instance, so many of them.
func watchWindows(t *testing.T, client *perfagent.Client, id string, windows int) func(func(int) bool) {
	return func(yield func(int) bool) {
		ctx, cancel := context.WithTimeout(t.Context(), testagent.Patience)
		defer cancel()
		seen := 0
		for message, err := range client.WatchMetrics(ctx, &pb.WatchMetricsRequest{InstanceIds: []string{id}}) {
			if err != nil {
				t.Fatalf("after %d windows: %v", seen, err)
			}
			if message.GetEvent() != pb.WatchEvent_WATCH_EVENT_WINDOW {
				continue
			}
			if !yield(seen) {
				return
			}
			if seen++; seen == windows {
				return
			}
		}
		t.Errorf("ended after %d windows", seen)
	}
}

func newLog() (perfagent.Option, *lockedBuffer) {
	logged := &lockedBuffer{}
	return perfagent.WithLogger(slog.New(slog.NewTextHandler(logged, nil))), logged
}
