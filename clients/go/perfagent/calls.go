package perfagent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

// rpc is what the comments of the contract say of an RPC; a test holds this to them.
type rpc struct {
	// Deadline of one attempt where the context has none. Nil where there is none.
	within func(request proto.Message) time.Duration
	// Whether it is safe to repeat.
	repeatable bool
}

// rpcs has all of the contract. What is missing here would have no deadline and not be repeated.
var rpcs = map[string]rpc{
	pb.AgentService_GetAgentInfo_FullMethodName:    {within(time.Second), true},
	pb.AgentService_GetCapabilities_FullMethodName: {within(time.Second), true},

	pb.AnalysisService_DetectBottlenecks_FullMethodName: {windowPlus(25 * time.Second), true},
	pb.AnalysisService_EvaluateSlos_FullMethodName:      {windowPlus(25 * time.Second), true},
	pb.AnalysisService_WatchBottlenecks_FullMethodName:  {nil, true},

	// with a request_id, which is made where there is none
	pb.InstanceService_RegisterInstance_FullMethodName: {within(10 * time.Second), true},
	pb.InstanceService_UpdateInstance_FullMethodName:   {within(10 * time.Second), true},
	pb.InstanceService_DeleteInstance_FullMethodName:   {within(10 * time.Second), true},
	pb.InstanceService_GetInstance_FullMethodName:      {within(time.Second), true},
	pb.InstanceService_ListInstances_FullMethodName:    {within(5 * time.Second), true},

	pb.MetricsService_CollectMetrics_FullMethodName:      {windowPlus(25 * time.Second), true},
	pb.MetricsService_BatchCollectMetrics_FullMethodName: {windowPlus(30 * time.Second), true},
	pb.MetricsService_CompareMetrics_FullMethodName:      {within(5 * time.Second), true},
	pb.MetricsService_WatchMetrics_FullMethodName:        {nil, true},

	pb.OptimizationService_RecommendOptimizations_FullMethodName: {windowPlus(30 * time.Second), true},
	pb.OptimizationService_GetInstanceConfig_FullMethodName:      {windowPlus(25 * time.Second), true},
	pb.OptimizationService_PredictPerformance_FullMethodName:     {windowPlus(30 * time.Second), true},
	pb.OptimizationService_ListPredictions_FullMethodName:        {within(5 * time.Second), true},

	// with a request_id
	pb.WorkflowService_StartWorkflow_FullMethodName:    {waitPlus(10 * time.Second), true},
	pb.WorkflowService_ApproveWorkflow_FullMethodName:  {within(10 * time.Second), true},
	pb.WorkflowService_RejectWorkflow_FullMethodName:   {within(10 * time.Second), true},
	pb.WorkflowService_PauseWorkflow_FullMethodName:    {within(10 * time.Second), true},
	pb.WorkflowService_ResumeWorkflow_FullMethodName:   {within(10 * time.Second), true},
	pb.WorkflowService_CancelWorkflow_FullMethodName:   {within(10 * time.Second), true},
	pb.WorkflowService_RollbackWorkflow_FullMethodName: {within(10 * time.Second), true},
	// without
	pb.WorkflowService_GetWorkflow_FullMethodName:          {within(5 * time.Second), true},
	pb.WorkflowService_ListWorkflows_FullMethodName:        {within(5 * time.Second), true},
	pb.WorkflowService_ListWorkflowEvents_FullMethodName:   {waitPlus(5 * time.Second), true},
	pb.WorkflowService_WatchWorkflow_FullMethodName:        {nil, true},
	pb.WorkflowService_WatchWorkflows_FullMethodName:       {nil, true},
	pb.WorkflowService_CreateConfigSnapshot_FullMethodName: {within(60 * time.Second), true},
	pb.WorkflowService_ListConfigSnapshots_FullMethodName:  {within(5 * time.Second), true},

	// with a request_id
	pb.WebhookService_CreateWebhook_FullMethodName:       {within(10 * time.Second), true},
	pb.WebhookService_RotateWebhookSecret_FullMethodName: {within(10 * time.Second), true},
	// without
	pb.WebhookService_GetWebhook_FullMethodName:            {within(5 * time.Second), true},
	pb.WebhookService_ListWebhooks_FullMethodName:          {within(5 * time.Second), true},
	pb.WebhookService_EnableWebhook_FullMethodName:         {within(10 * time.Second), true},
	pb.WebhookService_DisableWebhook_FullMethodName:        {within(10 * time.Second), true},
	pb.WebhookService_DeleteWebhook_FullMethodName:         {within(10 * time.Second), false},
	pb.WebhookService_TestWebhook_FullMethodName:           {within(30 * time.Second), true},
	pb.WebhookService_ListWebhookDeliveries_FullMethodName: {within(5 * time.Second), true},
	pb.WebhookService_GetWebhookDelivery_FullMethodName:    {within(5 * time.Second), true},
	pb.WebhookService_RedeliverWebhook_FullMethodName:      {within(10 * time.Second), true},
}

func within(deadline time.Duration) func(proto.Message) time.Duration {
	return func(proto.Message) time.Duration { return deadline }
}

// How long an agent waits for the plan of a dry run that says nothing of it.
const dryRunWait = time.Minute

// waitPlus is for calls whose answer may be held back for as long as they ask for.
func waitPlus(rest time.Duration) func(proto.Message) time.Duration {
	return func(request proto.Message) time.Duration {
		wait := time.Duration(0)
		switch request := request.(type) {
		case *pb.StartWorkflowRequest:
			if wait = request.GetWait().AsDuration(); request.GetWait() == nil && request.GetValidateOnly() {
				wait = dryRunWait
			}
		case *pb.ListWorkflowEventsRequest:
			wait = request.GetWait().AsDuration()
		}
		return max(0, wait) + rest
	}
}

// The window of an inline target that asks for none.
const defaultWindow = 5 * time.Second

func windowPlus(rest time.Duration) func(proto.Message) time.Duration {
	return func(request proto.Message) time.Duration { return window(request) + rest }
}

// window is the longest that a request asks for.
func window(request proto.Message) time.Duration {
	switch request := request.(type) {
	case *pb.CollectMetricsRequest:
		return windowOf(request)
	case *pb.DetectBottlenecksRequest:
		return windowOf(request)
	case *pb.EvaluateSlosRequest:
		return windowOf(request)
	case *pb.RecommendOptimizationsRequest:
		return windowOf(request)
	case *pb.GetInstanceConfigRequest:
		return windowOf(request)
	case *pb.PredictPerformanceRequest:
		return windowOf(request)
	case *pb.BatchCollectMetricsRequest:
		longest := time.Duration(0)
		for _, one := range request.GetRequests() {
			longest = max(longest, window(one))
		}
		return longest
	}
	return 0
}

// windowOf is how long a target is measured.
func windowOf(target interface {
	GetMetricsUrl() string
	GetMetricsUrls() []string
	GetWindow() *durationpb.Duration
}) time.Duration {
	inline := target.GetMetricsUrl() != "" || len(target.GetMetricsUrls()) > 0
	if target.GetWindow() == nil && inline {
		return defaultWindow
	}
	return max(0, target.GetWindow().AsDuration())
}

// bounded has a deadline: the context's own, else the one of the contract.
func (r rpc) bounded(ctx context.Context, request proto.Message) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has || r.within == nil {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, r.within(request))
}

// policy says how calls are repeated.
//
// It does what a retry policy in gRPC's service config would, which cannot read RetryInfo: it would ask an agent
// again sooner than that agent wants.
type policy struct {
	attempts int
	// A watch without a message for this long has lost its agent.
	silence time.Duration
	log     *slog.Logger
}

const (
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 10 * time.Second
)

func defaultPolicy() policy {
	return policy{
		attempts: 3,
		// three heartbeats
		silence: 45 * time.Second,
		log:     slog.New(slog.DiscardHandler),
	}
}

// unary makes a call as the contract says.
func (p policy) unary(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	rpc, known := rpcs[method]
	if !known {
		return errorOf(method, invoke(ctx, method, request, answer, conn, options...))
	}
	message := withRequestID(request.(proto.Message))
	return p.repeat(ctx, rpc.repeatable, func() error {
		ctx, cancel := rpc.bounded(ctx, message)
		defer cancel()
		return errorOf(method, invoke(ctx, method, message, answer, conn, options...))
	})
}

// repeat calls until it succeeds, fails for good, or there were enough attempts.
func (p policy) repeat(ctx context.Context, repeatable bool, attempt func() error) error {
	for failures := 1; ; failures++ {
		err := attempt()
		var failed *Error
		if !repeatable || failures >= p.attempts || !errors.As(err, &failed) || !passes(failed) {
			return err
		}
		wait := pauseAfter(failures, failed)
		if ends, has := ctx.Deadline(); has && time.Until(ends) < wait {
			return err
		}
		p.log.InfoContext(ctx, "call failed, and is made again", "rpc", failed.RPC, "error", err, "wait", wait)
		if !pause(ctx, wait) {
			return err
		}
	}
}

// passes tells whether the same call may succeed later.
func passes(err *Error) bool {
	return err.Code == codes.Unavailable || err.Reason == ErrTooManyCalls
}

// pauseAfter is how long to wait after so many failures: as long as the agent says or longer, and not with everybody
// else at once.
func pauseAfter(failures int, err *Error) time.Duration {
	backoff := maxBackoff
	// more would shift the bits away
	if failures < 16 {
		backoff = min(backoff, firstBackoff<<(failures-1))
	}
	half := backoff / 2
	return max(half, err.RetryAfter) + mathrand.N(half)
}

// pause waits, and tells whether the context let it.
func pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// withRequestID gives a request that can be repeated by its id one of its own.
func withRequestID(request proto.Message) proto.Message {
	field := request.ProtoReflect().Descriptor().Fields().ByName("request_id")
	if field == nil || field.Kind() != protoreflect.StringKind || request.ProtoReflect().Get(field).String() != "" {
		return request
	}
	// the caller's stays as it is: sent again, it is another request
	request = proto.Clone(request)
	request.ProtoReflect().Set(field, protoreflect.ValueOfString(newUUID()))
	return request
}

// newUUID is a random one (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
