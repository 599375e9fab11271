package perfagent_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/perfagent/perfagent/clients/go/perfagent"
	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

// What a real agent does only by chance is done here by one that is made of its contract.

func TestCallsAreRepeatedWhenTheAgentSaysSo(t *testing.T) {
	for name, test := range map[string]struct {
		failures []error
		attempts int
		want     perfagent.Reason
	}{
		"none":          {nil, 1, ""},
		"passes":        {[]error{refused(codes.Unavailable, perfagent.ErrDraining)}, 2, ""},
		"no details":    {[]error{status.Error(codes.Unavailable, "upstream reset")}, 2, ""},
		"too many":      {[]error{refused(codes.ResourceExhausted, perfagent.ErrTooManyCalls)}, 2, ""},
		"too often":     {repeated(refused(codes.Unavailable, perfagent.ErrDraining), 3), 3, perfagent.ErrDraining},
		"disk full":     {[]error{refused(codes.ResourceExhausted, perfagent.ErrStoreFull)}, 1, perfagent.ErrStoreFull},
		"not its fault": {[]error{refused(codes.NotFound, perfagent.ErrInstanceNotFound)}, 1, perfagent.ErrInstanceNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent := startFake(t, test.failures...)
			client := agent.client(t)
			_, err := client.DeleteInstance(t.Context(), &pb.DeleteInstanceRequest{InstanceId: "x"})
			if test.want == "" && err != nil || test.want != "" && !errors.Is(err, test.want) {
				t.Errorf("answered %v", err)
			}
			calls := agent.made()
			if len(calls) != test.attempts {
				t.Fatalf("%d attempts", len(calls))
			}
			for i, call := range calls {
				// the same request, so that it is done once
				if call.id == "" || call.id != calls[0].id {
					t.Errorf("request ids %q and %q", calls[0].id, call.id)
				}
				// and no sooner than the agent wants
				if i > 0 && name != "no details" && call.at.Sub(calls[i-1].at) < retryDelay {
					t.Errorf("repeated after %v", call.at.Sub(calls[i-1].at))
				}
			}
		})
	}
}

func TestNoCallIsRepeatedBeyondItsDeadline(t *testing.T) {
	agent := startFake(t, refusedFor(codes.Unavailable, perfagent.ErrDraining, time.Hour))
	client := agent.client(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// the agent's own words, and at once, since waiting for the deadline would be of no use
	_, err := client.DeleteInstance(ctx, &pb.DeleteInstanceRequest{InstanceId: "x"})
	if !errors.Is(err, perfagent.ErrDraining) || ctx.Err() != nil || len(agent.made()) != 1 {
		t.Errorf("%d attempts: %v", len(agent.made()), err)
	}
}

func TestBatchIsBegunAgainOnlyBeforeItsFirstResult(t *testing.T) {
	passes := refused(codes.Unavailable, perfagent.ErrDraining)
	for name, test := range map[string]struct {
		failures         []error
		attempts, result int
		fails            bool
	}{
		"before": {[]error{passes}, 2, 1, false},
		// nil lets a result come, and then the stream breaks
		"after": {[]error{nil}, 1, 1, true},
	} {
		agent := startFake(t, test.failures...)
		agent.breaks.Store(test.fails)
		client := agent.client(t)
		results, failed := 0, error(nil)
		for result, err := range client.BatchCollectMetrics(t.Context(), &pb.BatchCollectMetricsRequest{}) {
			if failed = err; result != nil {
				results++
			}
		}
		if results != test.result || (failed != nil) != test.fails || len(agent.made()) != test.attempts {
			t.Errorf("%s: %d results of %d attempts, then %v", name, results, len(agent.made()), failed)
		}
	}
}

func TestWatchLeavesAnAgentThatIsSilent(t *testing.T) {
	agent := startFake(t)
	log, logged := newLog()
	const silence = 300 * time.Millisecond
	client := agent.client(t, perfagent.WithSilence(silence), log)
	messages := 0
	for _, err := range client.WatchMetrics(t.Context(), &pb.WatchMetricsRequest{}) {
		check(t, err)
		// two a stream, and then it is silent
		if messages++; messages == 4 {
			break
		}
		if messages%2 == 1 {
			// a reader that takes its time is not the agent's silence
			time.Sleep(2 * silence)
			agent.more <- struct{}{}
		}
	}
	contains(t, logged.String(), "not even a heartbeat")
	if streams := len(agent.made()); streams != 2 {
		t.Errorf("%d streams for 4 messages", streams)
	}
}

const retryDelay = 600 * time.Millisecond

// fake fails as it is told, call by call, and then succeeds.
type fake struct {
	pb.UnimplementedInstanceServiceServer
	pb.UnimplementedMetricsServiceServer

	address  string
	mutex    sync.Mutex
	failures []error
	calls    []fakeCall
	// a batch breaks after its first result
	breaks atomic.Bool
	// lets a watch have another message
	more chan struct{}
}

type fakeCall struct {
	id string
	at time.Time
}

func startFake(t *testing.T, failures ...error) *fake {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	f := &fake{failures: failures, more: make(chan struct{}, 10), address: listener.Addr().String()}
	server := grpc.NewServer()
	pb.RegisterInstanceServiceServer(server, f)
	pb.RegisterMetricsServiceServer(server, f)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return f
}

func (f *fake) client(t *testing.T, options ...perfagent.Option) *perfagent.Client {
	t.Helper()
	client, err := perfagent.New(f.address, options...)
	check(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// made is the calls so far.
func (f *fake) made() []fakeCall {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return slices.Clone(f.calls)
}

func (f *fake) next(id string) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.calls = append(f.calls, fakeCall{id, time.Now()})
	if len(f.failures) == 0 {
		return nil
	}
	failure := f.failures[0]
	f.failures = f.failures[1:]
	return failure
}

func (f *fake) DeleteInstance(_ context.Context, request *pb.DeleteInstanceRequest) (*pb.DeleteInstanceResponse, error) {
	return &pb.DeleteInstanceResponse{}, f.next(request.GetRequestId())
}

func (f *fake) BatchCollectMetrics(_ *pb.BatchCollectMetricsRequest, answers grpc.ServerStreamingServer[pb.BatchCollectMetricsResponse]) error {
	if err := f.next(""); err != nil {
		return err
	}
	if err := answers.Send(&pb.BatchCollectMetricsResponse{}); err != nil || !f.breaks.Load() {
		return err
	}
	return refused(codes.Unavailable, perfagent.ErrDraining)
}

func (f *fake) WatchMetrics(_ *pb.WatchMetricsRequest, answers grpc.ServerStreamingServer[pb.WatchMetricsResponse]) error {
	if err := f.next(""); err != nil {
		return err
	}
	for {
		if err := answers.Send(&pb.WatchMetricsResponse{Event: pb.WatchEvent_WATCH_EVENT_HEARTBEAT}); err != nil {
			return err
		}
		select {
		case <-f.more:
		case <-answers.Context().Done():
			return answers.Context().Err()
		}
	}
}

func refused(code codes.Code, reason perfagent.Reason) error {
	return refusedFor(code, reason, retryDelay)
}

func refusedFor(code codes.Code, reason perfagent.Reason, delay time.Duration) error {
	refusal, err := status.New(code, "refused").WithDetails(
		&errdetails.ErrorInfo{Reason: string(reason), Domain: "perfagent"},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)},
	)
	if err != nil {
		panic(err)
	}
	return refusal.Err()
}

func repeated(err error, times int) []error {
	errs := make([]error, times)
	for i := range errs {
		errs[i] = err
	}
	return errs
}
