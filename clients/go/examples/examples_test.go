// Package examples runs the examples.
package examples

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/perfagent/perfagent/clients/go/internal/testagent"
	"github.com/perfagent/perfagent/clients/go/perfagent"
	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

// Instances that are watched often enough for a test.
const config = `
[[instances]]
instance_id = "vllm-1"
metrics_url = "URL"
scrape_interval = "200ms"
window = "2s"
`

func TestMeasure(t *testing.T) {
	agent, engine := testagent.Start(t), testagent.StartEngine(t)
	matches(t, run(t, agent, "", "measure", engine.URL), `(?s)succeeded: \d+ requests\nthroughput: [1-9][0-9.]+ tokens/s\nKV cache: 25.0 %`)
}

func TestDetect(t *testing.T) {
	agent, engine := testagent.Start(t), testagent.StartEngine(t)
	output := run(t, agent, "", "detect", engine.URL)
	found, err := dial(t, agent).DetectBottlenecks(t.Context(), &pb.DetectBottlenecksRequest{InstanceId: "vllm-1", MetricsUrl: engine.URL})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range found.GetBottlenecks() {
		matches(t, output, b.GetType().String()+` \(SEVERITY_`)
	}
	matches(t, output, `^\S+ .*\n`)
}

func TestRecommend(t *testing.T) {
	agent, engine := testagent.Start(t), testagent.StartEngine(t)
	output := run(t, agent, "", "recommend", engine.URL)
	answer, err := dial(t, agent).RecommendOptimizations(t.Context(), &pb.RecommendOptimizationsRequest{InstanceId: "vllm-1", MetricsUrl: engine.URL})
	if err != nil {
		t.Fatal(err)
	}
	if answer.GetAdvice() == pb.OptimizationAdvice_OPTIMIZATION_ADVICE_UNSPECIFIED {
		t.Error("no advice")
	}
	for _, o := range answer.GetOptimizations() {
		matches(t, output, o.GetType().String()+` \(OPTIMIZATION_PRIORITY_`)
	}
	matches(t, output, `^\S+ .*\n`)
}

func TestBatch(t *testing.T) {
	agent, engine := testagent.Start(t), testagent.StartEngine(t)
	output := run(t, agent, "", "batch", "here="+engine.URL, "gone=http://127.0.0.1:1/metrics")
	matches(t, output, `here \(vllm\): [1-9][0-9.]+ tokens/s`)
	matches(t, output, `gone: .*127.0.0.1`)
}

func TestWatch(t *testing.T) {
	engine := testagent.StartEngine(t)
	agent := testagent.StartWith(t, strings.Replace(config, "URL", engine.URL, 1))
	command := prepare(t, agent, "watch")
	output, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(output)
	wanted := regexp.MustCompile(`vllm-1: [1-9][0-9.]+ tokens/s`)
	for range 2 {
		for line := ""; !wanted.MatchString(line); {
			if line, err = lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		// and it goes on
		agent.Stop()
		agent.Restart()
	}
	_ = command.Process.Kill()
	_ = command.Wait()
}

func TestCompare(t *testing.T) {
	engine := testagent.StartEngine(t)
	agent := testagent.StartWith(t, strings.Replace(config, "URL", engine.URL, 1))
	measured(t, agent, "vllm-1")
	matches(t, run(t, agent, "\n", "compare", "vllm-1"), `(?m)^generation_tokens_per_second +[0-9.]+ \w+`)
}

func TestRegister(t *testing.T) {
	agent, engine := testagent.Start(t), testagent.StartEngine(t)
	list := "vllm-1 vllm " + engine.URL + "\nvllm-2 auto " + engine.URL + "?x=1\n"
	run(t, agent, list, "register")
	// again without harm
	run(t, agent, list, "register")
	var ids []string
	for instance, err := range dial(t, agent).ListInstances(t.Context(), &pb.ListInstancesRequest{}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, instance.GetInstanceId())
	}
	if got := strings.Join(ids, " "); got != "vllm-1 vllm-2" {
		t.Errorf("registered %q", got)
	}
}

func TestWorkflow(t *testing.T) {
	agent := simulated(t)
	output := run(t, agent, "", "workflow", "sim-1")
	matches(t, output, `(?s)^Workflow created: \S+\n.*Workflow approved\n.*started: .*planned: .*completed: .*Workflow WORKFLOW_STATUS_COMPLETED\n`)
	matches(t, output, `generation_tokens_per_second \S+: x([2-9]|1\.[5-9])`)
}

func TestRollback(t *testing.T) {
	agent := simulated(t)
	// half the places
	output := run(t, agent, "", "rollback", "sim-1", "max_num_seqs", "2")
	var statuses []pb.WorkflowStatus
	for workflow, err := range dial(t, agent).ListWorkflows(t.Context(), &pb.ListWorkflowsRequest{}) {
		if err != nil {
			t.Fatal(err)
		}
		statuses = append(statuses, workflow.GetStatus())
	}
	if len(statuses) != 1 || statuses[0] != pb.WorkflowStatus_WORKFLOW_STATUS_ROLLED_BACK {
		t.Errorf("ended as %v:\n%s", statuses, output)
	}
}

// simulated is an agent that has measured a simulated engine for a while and may change it.
func simulated(t *testing.T) *testagent.Agent {
	t.Helper()
	agent := testagent.StartWith(t, testagent.Simulated(t))
	ctx, cancel := context.WithTimeout(t.Context(), testagent.Patience)
	defer cancel()
	for seen, err := range dial(t, agent).WatchMetrics(ctx, &pb.WatchMetricsRequest{InstanceIds: []string{"sim-1"}}) {
		if err != nil {
			t.Fatal(err)
		}
		if seen.GetMeasurement().GetWindow().GetObservedSeconds() >= 4 {
			return agent
		}
	}
	t.Fatal("the watch ended")
	return nil
}

// The program of the README is built as it says there.
func TestReadme(t *testing.T) {
	agent, engine := testagent.Start(t), testagent.StartEngine(t)
	module, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(module, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(text), "```go\n")
	program, _, _ = strings.Cut(program, "```")
	program = strings.Replace(program, "127.0.0.1:8002", agent.Address, 1)
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "main.go"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	var output []byte
	for _, arguments := range [][]string{
		{"mod", "init", "hello"},
		{"mod", "edit", "-replace", "github.com/perfagent/perfagent/clients/go=" + module},
		{"mod", "tidy"},
		{"run", ".", engine.URL},
	} {
		command := exec.Command("go", arguments...)
		command.Dir = directory
		if output, err = command.CombinedOutput(); err != nil {
			t.Fatalf("go %v: %v\n%s", arguments, err, output)
		}
	}
	matches(t, string(output), `[1-9][0-9.]+ tokens/s`)
}

// Each is shorter than what users had for the same without this client.
func TestExamplesAreShort(t *testing.T) {
	for name, limit := range map[string]int{"detect": 22, "measure": 10, "batch": 23, "watch": 23, "compare": 17, "recommend": 20, "workflow": 32} {
		text, err := os.ReadFile(filepath.Join(name, "main.go"))
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := strings.Cut(string(text), "\nfunc main() {\n")
		lines := 0
		for line := range strings.Lines(body) {
			line = strings.TrimSpace(line)
			if strings.ContainsAny(line, "abcdefghijklmnopqrstuvwxyz") && !strings.HasPrefix(line, "//") {
				lines++
			}
		}
		if lines >= limit {
			t.Errorf("%s has %d lines, which is not below %d", name, lines, limit)
		}
	}
}

// prepare builds an example and lets it find the agent as it finds any: by PERFAGENT_SERVER.
func prepare(t *testing.T, agent *testagent.Agent, name string, arguments ...string) *exec.Cmd {
	t.Helper()
	binary := filepath.Join(t.TempDir(), name)
	if output, err := exec.Command("go", "build", "-o", binary, "./"+name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testagent.Patience)
	t.Cleanup(cancel)
	command := exec.CommandContext(ctx, binary, arguments...)
	command.Env = append(os.Environ(), "PERFAGENT_SERVER="+agent.Address)
	return command
}

func run(t *testing.T, agent *testagent.Agent, input, name string, arguments ...string) string {
	t.Helper()
	command := prepare(t, agent, name, arguments...)
	command.Stdin = strings.NewReader(input)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, output)
	}
	return string(output)
}

// measured waits for a first window.
func measured(t *testing.T, agent *testagent.Agent, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testagent.Patience)
	defer cancel()
	for seen, err := range dial(t, agent).WatchMetrics(ctx, &pb.WatchMetricsRequest{InstanceIds: []string{id}}) {
		if err != nil {
			t.Fatal(err)
		}
		if seen.GetMeasurement() != nil {
			return
		}
	}
}

func dial(t *testing.T, agent *testagent.Agent) *perfagent.Client {
	t.Helper()
	client, err := perfagent.Dial(t.Context(), agent.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func matches(t *testing.T, text, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(text) {
		t.Errorf("no %s in\n%s", pattern, text)
	}
}
