package perfagent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/perfagent/perfagent/clients/go/internal/testagent"
	"github.com/perfagent/perfagent/clients/go/perfagent"
	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

func TestEveryRPCOfTheContract(t *testing.T) {
	agent, engine := testagent.Start(t), testagent.StartEngine(t)
	calls := &recorder{}
	client := dial(t, agent, calls.options())
	ctx := t.Context()

	info := must(client.GetAgentInfo(ctx, &pb.GetAgentInfoRequest{}))
	if info.GetVersion() == "" || info.GetLimits().GetMaxBatch() == 0 {
		t.Errorf("the agent says nothing of itself: %v", info)
	}
	capabilities := must(client.GetCapabilities(ctx, &pb.GetCapabilitiesRequest{}))
	if !slices.ContainsFunc(capabilities.GetEngines(), func(e *pb.EngineCapability) bool { return e.GetName() == "vllm" }) {
		t.Errorf("no vllm among %v", capabilities.GetEngines())
	}

	register(t, client, "vllm-1", engine, map[string]string{"team": "chat"})
	register(t, client, "vllm-2", engine, nil)
	got := must(client.GetInstance(ctx, &pb.GetInstanceRequest{InstanceId: "vllm-1"})).GetInstance()
	if got.GetLabels()["team"] != "chat" {
		t.Errorf("labels were lost: %v", got)
	}
	got.Labels = map[string]string{"team": "search"}
	updated := must(client.UpdateInstance(ctx, &pb.UpdateInstanceRequest{
		Instance:   got,
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}},
	})).GetInstance()
	if updated.GetLabels()["team"] != "search" || updated.GetEtag() == got.GetEtag() {
		t.Errorf("nothing was changed: %v", updated)
	}

	// a page for each
	var ids []string
	for instance, err := range client.ListInstances(ctx, &pb.ListInstancesRequest{PageSize: 1}) {
		ids = append(ids, instance.GetInstanceId())
		check(t, err)
	}
	if !slices.Equal(ids, []string{"vllm-1", "vllm-2"}) {
		t.Errorf("listed %v", ids)
	}

	// the first scrape knows totals only, and settings that come late are a message of their own
	for message, err := range client.WatchMetrics(ctx, &pb.WatchMetricsRequest{InstanceIds: []string{"vllm-1"}}) {
		check(t, err)
		if message.GetMeasurement().GetWindow().GetKind() == pb.WindowKind_WINDOW_KIND_INTERVAL {
			break
		}
	}

	before := must(client.CollectMetrics(ctx, &pb.CollectMetricsRequest{InstanceId: "vllm-1"})).GetMeasurement()
	if rate := before.GetThroughputMetrics().TokensPerSecond; rate == nil || *rate <= 0 {
		t.Errorf("no tokens a second: %v", before.GetThroughputMetrics())
	}
	if before.GetRequestMetrics().TimeToFirstTokenSeconds != nil {
		t.Error("a latency that the engine does not export")
	}
	after := must(client.CollectMetrics(ctx, inline("x", engine.URL, time.Second))).GetMeasurement()
	comparisons := must(client.CompareMetrics(ctx, &pb.CompareMetricsRequest{Baseline: before, Candidate: after})).GetComparisons()
	if len(comparisons) == 0 {
		t.Error("nothing was compared")
	}

	found := must(client.DetectBottlenecks(ctx, &pb.DetectBottlenecksRequest{Measurement: after}))
	if found.GetVerdict() == pb.DiagnosisVerdict_DIAGNOSIS_VERDICT_UNSPECIFIED || !proto.Equal(found.GetWindow(), after.GetWindow()) {
		t.Errorf("nothing is told of the measurement: %v", found)
	}
	kept := must(client.EvaluateSlos(ctx, &pb.EvaluateSlosRequest{Measurement: after, Slos: []*pb.Slo{{
		Name: "ttft", Quantity: "time_to_first_token_seconds", Aggregation: pb.SloAggregation_SLO_AGGREGATION_MEAN,
		Target: &pb.Slo_AtMost{AtMost: 60},
	}}}))
	if len(kept.GetSlos()) != 1 || kept.GetStatus() != pb.SloStatus_SLO_STATUS_MET {
		t.Errorf("first tokens within a minute are kept: %v", kept)
	}
	advice := must(client.RecommendOptimizations(ctx, &pb.RecommendOptimizationsRequest{Measurement: after}))
	if advice.GetAdvice() == pb.OptimizationAdvice_OPTIMIZATION_ADVICE_UNSPECIFIED || !proto.Equal(advice.GetWindow(), after.GetWindow()) {
		t.Errorf("nothing is advised of the measurement: %v", advice)
	}
	changes := must(perfagent.Settings(map[string]any{"max_num_seqs": 64}))
	whatIf := must(client.PredictPerformance(ctx, &pb.PredictPerformanceRequest{Measurement: after, Changes: changes}))
	if len(whatIf.GetChanges()) != 1 || whatIf.GetChanges()[0].GetToValue() != "64" {
		t.Errorf("not the change that was asked about: %v", whatIf)
	}
	config := must(client.GetInstanceConfig(ctx, &pb.GetInstanceConfigRequest{InstanceId: "inline", MetricsUrl: engine.URL, Window: durationpb.New(time.Second)}))
	if len(config.GetSettings()) == 0 {
		t.Errorf("no settings: %v", config)
	}
	must(client.ListPredictions(ctx, &pb.ListPredictionsRequest{}))
	for message, err := range client.WatchBottlenecks(ctx, &pb.WatchBottlenecksRequest{InstanceIds: []string{"vllm-1"}}) {
		check(t, err)
		if message.GetEvent() == pb.BottleneckEvent_BOTTLENECK_EVENT_CURRENT {
			break
		}
	}

	batch := map[string]bool{}
	for result, err := range client.BatchCollectMetrics(ctx, &pb.BatchCollectMetricsRequest{Requests: []*pb.CollectMetricsRequest{
		inline("here", engine.URL, 0), inline("gone", "http://127.0.0.1:1/metrics", 0),
	}}) {
		check(t, err)
		batch[result.GetInstanceId()] = result.GetMeasurement() != nil
	}
	if !batch["here"] || batch["gone"] || len(batch) != 2 {
		t.Errorf("the batch gave %v", batch)
	}

	created := must(client.CreateWebhook(ctx, &pb.CreateWebhookRequest{WebhookId: "pager", Url: "https://hooks.invalid/x"}))
	callWorkflows(t, client, "vllm-2")
	callWebhooks(t, client, created)

	must(client.DeleteInstance(ctx, &pb.DeleteInstanceRequest{InstanceId: "vllm-1", Etag: updated.GetEtag()}))
	_, err := client.GetInstance(ctx, &pb.GetInstanceRequest{InstanceId: "vllm-1"})
	if !errors.Is(err, perfagent.ErrInstanceNotFound) {
		t.Errorf("it is still there: %v", err)
	}

	health := grpc_health_v1.NewHealthClient(client.Conn())
	if answer := must(health.Check(ctx, &grpc_health_v1.HealthCheckRequest{})); answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("the agent is %v", answer)
	}
	for _, method := range methods() {
		if !calls.has(method) {
			t.Errorf("%s was not called: call it here", method)
		}
	}
}

// callWebhooks calls what there is for webhooks, of one that nobody receives.
func callWebhooks(t *testing.T, client *perfagent.Client, created *pb.CreateWebhookResponse) {
	ctx := t.Context()
	id := created.GetWebhook().GetWebhookId()
	if !strings.HasPrefix(created.GetSecret(), "whsec_") {
		t.Error("no secret")
	}
	rotated := must(client.RotateWebhookSecret(ctx, &pb.RotateWebhookSecretRequest{WebhookId: id}))
	if rotated.GetSecret() == created.GetSecret() {
		t.Error("the secret is the one from before")
	}
	if attempt := must(client.TestWebhook(ctx, &pb.TestWebhookRequest{WebhookId: id})).GetAttempt(); attempt.GetTaken() || attempt.GetProblem() == "" {
		t.Errorf("nobody can have taken it: %v", attempt)
	}
	owed := must(client.ListWebhookDeliveries(ctx, &pb.ListWebhookDeliveriesRequest{WebhookId: id})).GetDeliveries()
	if len(owed) == 0 {
		t.Fatal("workflows ran, and nothing is owed")
	}
	delivery := must(client.GetWebhookDelivery(ctx, &pb.GetWebhookDeliveryRequest{DeliveryId: owed[0].GetDeliveryId()}))
	if delivery.GetDelivery().GetType() != "workflow.status_changed" {
		t.Errorf("not what a webhook is told that does not say: %v", delivery)
	}
	must(client.RedeliverWebhook(ctx, &pb.RedeliverWebhookRequest{DeliveryId: owed[0].GetDeliveryId()}))
	disabled := must(client.DisableWebhook(ctx, &pb.DisableWebhookRequest{WebhookId: id})).GetWebhook().GetDisabled()
	if disabled.GetReason() != pb.WebhookDisabledReason_WEBHOOK_DISABLED_REASON_REQUESTED {
		t.Errorf("disabled, and it does not say by whom: %v", disabled)
	}
	must(client.EnableWebhook(ctx, &pb.EnableWebhookRequest{WebhookId: id}))
	if one := must(client.GetWebhook(ctx, &pb.GetWebhookRequest{WebhookId: id})).GetWebhook(); one.GetDisabled() != nil {
		t.Errorf("it is still disabled: %v", one)
	}
	must(client.DeleteWebhook(ctx, &pb.DeleteWebhookRequest{WebhookId: id}))
	if left := must(client.ListWebhooks(ctx, &pb.ListWebhooksRequest{})).GetWebhooks(); len(left) != 0 {
		t.Errorf("they are still there: %v", left)
	}
}

// callWorkflows calls what there is for workflows, on an instance without an actuator.
func callWorkflows(t *testing.T, client *perfagent.Client, instance string) {
	ctx := t.Context()
	start := func(cap int) *pb.Workflow {
		return must(client.StartWorkflow(ctx, &pb.StartWorkflowRequest{
			InstanceId: instance, WorkflowType: "config_change", Wait: durationpb.New(30 * time.Second),
			Changes: must(perfagent.Settings(map[string]any{"max_num_seqs": cap})),
		})).GetWorkflow()
	}
	first := start(64)
	id := first.GetWorkflowId()
	if first.GetStatus() != pb.WorkflowStatus_WORKFLOW_STATUS_PENDING_APPROVAL {
		t.Fatalf("no plan to approve: %v", first)
	}
	for message, err := range client.WatchWorkflows(ctx, &pb.WatchWorkflowsRequest{IncludeSnapshot: true}) {
		check(t, err)
		if message.GetSnapshot().GetWorkflowId() != id {
			t.Errorf("told %v", message)
		}
		break
	}
	must(client.PauseWorkflow(ctx, &pb.PauseWorkflowRequest{WorkflowId: id}))
	must(client.ResumeWorkflow(ctx, &pb.ResumeWorkflowRequest{WorkflowId: id}))
	approved := must(client.ApproveWorkflow(ctx, &pb.ApproveWorkflowRequest{WorkflowId: id, PlanEtag: first.GetPlan().GetEtag()})).GetWorkflow()
	if approved.GetOutcome() != pb.WorkflowOutcome_WORKFLOW_OUTCOME_NOT_APPLIED {
		t.Errorf("without an actuator it is %v", approved)
	}
	if _, err := client.RollbackWorkflow(ctx, &pb.RollbackWorkflowRequest{WorkflowId: id}); !errors.Is(err, perfagent.ErrNothingApplied) {
		t.Errorf("rolled back what was not applied: %v", err)
	}
	must(client.RejectWorkflow(ctx, &pb.RejectWorkflowRequest{WorkflowId: start(65).GetWorkflowId()}))
	must(client.CancelWorkflow(ctx, &pb.CancelWorkflowRequest{WorkflowId: start(66).GetWorkflowId()}))
	if got := must(client.GetWorkflow(ctx, &pb.GetWorkflowRequest{WorkflowId: id})).GetWorkflow(); !got.GetDone() {
		t.Errorf("not done: %v", got)
	}
	listed := 0
	for _, err := range client.ListWorkflows(ctx, &pb.ListWorkflowsRequest{InstanceId: instance}) {
		check(t, err)
		listed++
	}
	if listed != 3 {
		t.Errorf("%d workflows are listed", listed)
	}
	var told []string
	for message, err := range client.WatchWorkflow(ctx, &pb.WatchWorkflowRequest{WorkflowId: id}) {
		check(t, err)
		if event := message.GetEvent(); event != nil {
			told = append(told, event.GetType())
		}
	}
	if want := []string{"started", "analysed", "planned", "paused", "resumed", "approved"}; !slices.Equal(told, want) {
		t.Errorf("told %v", told)
	}
	events := must(client.ListWorkflowEvents(ctx, &pb.ListWorkflowEventsRequest{WorkflowId: id})).GetEvents()
	if len(events) != len(told) {
		t.Errorf("%d events are listed of %d", len(events), len(told))
	}
	if _, err := client.CreateConfigSnapshot(ctx, &pb.CreateConfigSnapshotRequest{InstanceId: instance}); !errors.Is(err, perfagent.ErrNoActuator) {
		t.Errorf("settings were kept of what has no actuator: %v", err)
	}
	for _, err := range client.ListConfigSnapshots(ctx, &pb.ListConfigSnapshotsRequest{}) {
		check(t, err)
	}
}

func TestDeadlinesAreThoseOfTheContractUnlessTheContextHasOne(t *testing.T) {
	agent, engine := testagent.Start(t), testagent.StartEngine(t)
	calls := &recorder{}
	client := dial(t, agent, calls.options())
	for _, test := range []struct {
		within time.Duration
		call   func(context.Context)
	}{
		{time.Second, func(ctx context.Context) { must(client.GetAgentInfo(ctx, &pb.GetAgentInfoRequest{})) }},
		{25 * time.Second, func(ctx context.Context) { must(client.CollectMetrics(ctx, inline("x", engine.URL, 0))) }},
		{26 * time.Second, func(ctx context.Context) { must(client.CollectMetrics(ctx, inline("x", engine.URL, time.Second))) }},
		{30 * time.Second, func(ctx context.Context) {
			batch := &pb.BatchCollectMetricsRequest{Requests: []*pb.CollectMetricsRequest{inline("x", engine.URL, 0)}}
			for _, err := range client.BatchCollectMetrics(ctx, batch) {
				check(t, err)
			}
		}},
	} {
		test.call(t.Context())
		// some time has passed since it was set
		if got := calls.lastDeadline(); got > test.within || got < test.within-test.within/2 {
			t.Errorf("%v to go, not %v", got, test.within)
		}
		long, cancel := context.WithTimeout(t.Context(), time.Hour)
		test.call(long)
		cancel()
		if got := calls.lastDeadline(); got < 59*time.Minute {
			t.Errorf("%v to go, not the hour of the context", got)
		}
	}
}

func TestRequestIDsAreMadeAndTheRequestStaysAsItIs(t *testing.T) {
	agent, engine := testagent.Start(t), testagent.StartEngine(t)
	client := dial(t, agent)
	request := &pb.RegisterInstanceRequest{InstanceId: "vllm-1", MetricsUrl: engine.URL}
	must(client.RegisterInstance(t.Context(), request))
	if request.RequestId != "" {
		t.Error("the caller's request was changed")
	}
	// an id of its own each time, so it is another registration
	if _, err := client.RegisterInstance(t.Context(), request); !errors.Is(err, perfagent.ErrInstanceExists) {
		t.Errorf("registered twice: %v", err)
	}
	// an id that the caller gives is kept
	request = &pb.RegisterInstanceRequest{InstanceId: "vllm-2", MetricsUrl: engine.URL, RequestId: "8d4a9b1e-6a0f-4f0e-9d53-1c2b3a4d5e6f"}
	must(client.RegisterInstance(t.Context(), request))
	must(client.RegisterInstance(t.Context(), request))
}

// recorder sees each attempt of each call.
type recorder struct {
	mutex    sync.Mutex
	methods  []string
	deadline time.Duration
}

func (r *recorder) options() perfagent.Option {
	return perfagent.WithDialOptions(
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			r.note(ctx, method)
			return invoke(ctx, method, request, answer, conn, options...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			r.note(ctx, method)
			return open(ctx, desc, conn, method, options...)
		}),
	)
}

func (r *recorder) note(ctx context.Context, method string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.methods = append(r.methods, method)
	r.deadline = 0
	if at, has := ctx.Deadline(); has {
		r.deadline = time.Until(at)
	}
}

func (r *recorder) has(method string) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return slices.Contains(r.methods, method)
}

func (r *recorder) count(method string) int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	n := 0
	for _, called := range r.methods {
		if called == method {
			n++
		}
	}
	return n
}

func (r *recorder) lastDeadline() time.Duration {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.deadline
}

// methods is each RPC of package perfagent.v1, as generated.
func methods() []string {
	var names []string
	protoregistry.GlobalFiles.RangeFilesByPackage("perfagent.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				names = append(names, fmt.Sprintf("/%s/%s", service.FullName(), service.Methods().Get(j).Name()))
			}
		}
		return true
	})
	return names
}

func dial(t *testing.T, agent *testagent.Agent, options ...perfagent.Option) *perfagent.Client {
	t.Helper()
	client, err := perfagent.Dial(t.Context(), agent.Address, options...)
	check(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// register lets the agent watch an engine, with five scrapes a second.
func register(t *testing.T, client *perfagent.Client, id string, engine *testagent.Engine, labels map[string]string) {
	t.Helper()
	_, err := client.RegisterInstance(t.Context(), &pb.RegisterInstanceRequest{
		InstanceId:     id,
		MetricsUrl:     engine.URL,
		ScrapeInterval: durationpb.New(200 * time.Millisecond),
		Window:         durationpb.New(time.Second),
		Labels:         labels,
	})
	check(t, err)
}

// inline is a target that nobody registered.
func inline(id, url string, window time.Duration) *pb.CollectMetricsRequest {
	return &pb.CollectMetricsRequest{InstanceId: id, MetricsUrl: url, Window: durationpb.New(window)}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// must ends the test where a call fails.
func must[T any](answer T, err error) T {
	if err != nil {
		panic(err)
	}
	return answer
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(testagent.Patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, testagent.Patience)
		}
	}
}

func contains(t *testing.T, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%q does not say %q", text, part)
	}
}
