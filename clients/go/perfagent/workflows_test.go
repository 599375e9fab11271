package perfagent_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/perfagent/perfagent/clients/go/perfagent"
	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

const workflowID = "0197c1a2-6a51-7d58-8f64-2a0c1f7f2d10"

func TestWorkflowWatchHasNeitherGapNorDuplicate(t *testing.T) {
	reasons := []perfagent.Reason{perfagent.ErrStreamLifetime, perfagent.ErrDraining, perfagent.ErrWatcherTooSlow, ""}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			chance := rand.New(rand.NewPCG(seed, 0))
			var breaks []breakOff
			for range 6 {
				breaks = append(breaks, breakOff{1 + chance.IntN(12), reasons[chance.IntN(len(reasons))]})
			}
			log := startLog(t, 60, breaks...)
			var told []uint64
			for message, err := range log.client(t).WatchWorkflow(t.Context(), &pb.WatchWorkflowRequest{WorkflowId: workflowID}) {
				check(t, err)
				told = append(told, message.GetEvent().GetRevision())
			}
			if want := log.revisions(0); !slices.Equal(told, want) {
				t.Errorf("told %v of %v", told, want)
			}
			afters := log.afters()
			if len(afters) != len(breaks)+1 || !slices.IsSorted(afters) {
				t.Errorf("begun after %v", afters)
			}
		})
	}
}

func TestWatchOfAllWorkflowsMissesNothing(t *testing.T) {
	log := startLog(t, 60, breakOff{0, perfagent.ErrStreamLifetime}, breakOff{5, perfagent.ErrDraining})
	// from now on; before anything is told the agent says up to where nothing is left to tell
	log.events = log.events[10:]
	var told []uint64
	for message, err := range log.client(t).WatchWorkflows(t.Context(), &pb.WatchWorkflowsRequest{}) {
		check(t, err)
		told = append(told, message.GetEvent().GetRevision())
	}
	want := log.revisions(0)
	if !slices.Equal(told, want) {
		t.Errorf("told %v of %v", told, want)
	}
	if afters := log.afters(); afters[0] != 0 || afters[1] != want[0]-1 {
		t.Errorf("begun after %v", afters)
	}
}

func TestWorkflowWatchSaysWhatIsNotKept(t *testing.T) {
	log := startLog(t, 60, breakOff{3, perfagent.ErrDraining})
	log.oldest = 30
	var ended error
	for _, err := range log.client(t).WatchWorkflow(t.Context(), &pb.WatchWorkflowRequest{WorkflowId: workflowID}) {
		ended = err
	}
	var failed *perfagent.Error
	if !errors.Is(ended, perfagent.ErrLogCompacted) || !errors.As(ended, &failed) || failed.Metadata["oldest_revision"] != "30" {
		t.Errorf("ended with %v", ended)
	}
}

func TestCompletionIsWaitedForWhateverBreaks(t *testing.T) {
	log := startLog(t, 60, breakOff{1, perfagent.ErrDraining}, breakOff{1, perfagent.ErrStreamLifetime})
	// what was between is not kept any more, which does not matter here
	log.oldest = 100
	workflow, err := log.client(t).WaitForCompletion(t.Context(), workflowID)
	check(t, err)
	if !workflow.GetDone() || workflow.GetWorkflowId() != workflowID {
		t.Errorf("ended as %v", workflow)
	}
	if afters := log.afters(); len(afters) < 3 || !slices.Equal(afters[:3], []uint64{0, 60, 0}) {
		t.Errorf("begun after %v", afters)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := log.client(t).WaitForCompletion(ctx, workflowID); !errors.Is(err, context.Canceled) {
		t.Errorf("waited for %v", err)
	}
}

func TestWorkflowsAreListedPageByPage(t *testing.T) {
	log := startLog(t, 1)
	var ids []string
	for workflow, err := range log.client(t).ListWorkflows(t.Context(), &pb.ListWorkflowsRequest{}) {
		check(t, err)
		ids = append(ids, workflow.GetWorkflowId())
	}
	if !slices.Equal(ids, []string{"first", "second"}) {
		t.Errorf("listed %v", ids)
	}
}

func TestStartHasTheTimeThatItAsksFor(t *testing.T) {
	log := startLog(t, 1)
	client := log.client(t)
	for _, request := range []*pb.StartWorkflowRequest{
		{InstanceId: "a"},
		{InstanceId: "a", Wait: durationpb.New(30 * time.Second)},
		{InstanceId: "a", ValidateOnly: true},
	} {
		must(client.StartWorkflow(t.Context(), request))
	}
	// the contract's 10 seconds, and as long as the answer is held back
	for i, atMost := range []time.Duration{10 * time.Second, 40 * time.Second, 70 * time.Second} {
		left := log.deadlines[i]
		if left > atMost || left < atMost-5*time.Second {
			t.Errorf("call %d had %v of %v", i, left, atMost)
		}
	}
}

// breakOff ends a stream after so many messages; without a reason as what lies between does.
type breakOff struct {
	after  int
	reason perfagent.Reason
}

// workflowLog is an agent with one workflow: every third revision is another's.
type workflowLog struct {
	pb.UnimplementedWorkflowServiceServer

	address   string
	last      uint64
	events    []*pb.WorkflowEvent
	oldest    uint64
	mutex     sync.Mutex
	breaks    []breakOff
	begun     []uint64
	deadlines []time.Duration
}

func startLog(t *testing.T, last uint64, breaks ...breakOff) *workflowLog {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	log := &workflowLog{address: listener.Addr().String(), last: last, breaks: breaks}
	for revision := uint64(1); revision <= last; revision++ {
		if revision%3 != 0 {
			log.events = append(log.events, &pb.WorkflowEvent{Revision: revision, WorkflowId: workflowID})
		}
	}
	server := grpc.NewServer()
	pb.RegisterWorkflowServiceServer(server, log)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return log
}

func (l *workflowLog) client(t *testing.T) *perfagent.Client {
	t.Helper()
	client, err := perfagent.New(l.address)
	check(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

func (l *workflowLog) revisions(after uint64) (revisions []uint64) {
	for _, event := range l.events {
		if event.GetRevision() > after {
			revisions = append(revisions, event.GetRevision())
		}
	}
	return revisions
}

// afters is the revisions after which streams were begun.
func (l *workflowLog) afters() []uint64 {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return slices.Clone(l.begun)
}

func (l *workflowLog) WatchWorkflow(request *pb.WatchWorkflowRequest, answers grpc.ServerStreamingServer[pb.WatchWorkflowResponse]) error {
	return l.watch(request.GetAfterRevision(), request.GetIncludeSnapshot(), answers.Send)
}

func (l *workflowLog) WatchWorkflows(request *pb.WatchWorkflowsRequest, answers grpc.ServerStreamingServer[pb.WatchWorkflowsResponse]) error {
	return l.watch(request.GetAfterRevision(), request.GetIncludeSnapshot(), func(message *pb.WatchWorkflowResponse) error {
		// both have the same fields
		all := &pb.WatchWorkflowsResponse{}
		encoded, err := proto.Marshal(message)
		if err == nil {
			err = proto.Unmarshal(encoded, all)
		}
		if err != nil {
			return err
		}
		return answers.Send(all)
	})
}

func (l *workflowLog) watch(after uint64, snapshot bool, send func(*pb.WatchWorkflowResponse) error) error {
	l.mutex.Lock()
	l.begun = append(l.begun, after)
	ends := breakOff{after: len(l.events) * 2, reason: "none"}
	breaks := len(l.breaks) > 0
	if breaks {
		ends, l.breaks = l.breaks[0], l.breaks[1:]
	}
	l.mutex.Unlock()
	if 0 < after && after < l.oldest {
		return detailed(codes.OutOfRange, perfagent.ErrLogCompacted, "oldest_revision", l.oldest)
	}
	var messages []*pb.WatchWorkflowResponse
	if snapshot && after == 0 {
		told := &pb.WatchWorkflowResponse_Snapshot{Snapshot: &pb.Workflow{WorkflowId: workflowID}}
		messages = append(messages, &pb.WatchWorkflowResponse{Revision: l.last, Told: told})
		after = l.last
	}
	for _, event := range l.events {
		if event.GetRevision() > after {
			messages = append(messages,
				&pb.WatchWorkflowResponse{Revision: event.GetRevision(), Told: &pb.WatchWorkflowResponse_Event{Event: event}},
				&pb.WatchWorkflowResponse{Revision: event.GetRevision(), Told: &pb.WatchWorkflowResponse_Bookmark{Bookmark: &pb.WatchBookmark{}}})
		}
	}
	for i, message := range messages {
		if breaks && i == ends.after {
			return broken(ends.reason, message.GetRevision()-1)
		}
		if err := send(message); err != nil {
			return err
		}
	}
	if breaks && ends.after >= len(messages) {
		return broken(ends.reason, l.last)
	}
	return nil
}

func broken(reason perfagent.Reason, revision uint64) error {
	code := codes.Unavailable
	switch reason {
	case "":
		return status.Error(codes.Unavailable, "upstream reset")
	case perfagent.ErrWatcherTooSlow:
		code = codes.ResourceExhausted
	}
	return detailed(code, reason, "revision", revision)
}

func detailed(code codes.Code, reason perfagent.Reason, key string, revision uint64) error {
	refusal, err := status.New(code, "refused").WithDetails(&errdetails.ErrorInfo{
		Reason: string(reason), Domain: "perfagent", Metadata: map[string]string{key: fmt.Sprint(revision)},
	})
	if err != nil {
		panic(err)
	}
	return refusal.Err()
}

func (l *workflowLog) GetWorkflow(_ context.Context, request *pb.GetWorkflowRequest) (*pb.GetWorkflowResponse, error) {
	return &pb.GetWorkflowResponse{Workflow: &pb.Workflow{WorkflowId: request.GetWorkflowId(), Done: true}}, nil
}

func (l *workflowLog) StartWorkflow(ctx context.Context, _ *pb.StartWorkflowRequest) (*pb.StartWorkflowResponse, error) {
	deadline, _ := ctx.Deadline()
	l.deadlines = append(l.deadlines, time.Until(deadline))
	return &pb.StartWorkflowResponse{Workflow: &pb.Workflow{}}, nil
}

func (l *workflowLog) ListWorkflows(_ context.Context, request *pb.ListWorkflowsRequest) (*pb.ListWorkflowsResponse, error) {
	if request.GetPageToken() == "" {
		return &pb.ListWorkflowsResponse{Workflows: []*pb.Workflow{{WorkflowId: "first"}}, NextPageToken: "more"}, nil
	}
	return &pb.ListWorkflowsResponse{Workflows: []*pb.Workflow{{WorkflowId: "second"}}}, nil
}
