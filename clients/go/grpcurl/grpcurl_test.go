// Package grpcurl drives an agent with the tool that people try it with. The one in v1 is of today and asks for
// reflection v1; the one in v1alpha is the last that asks for v1alpha, as other tools still do.
package grpcurl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perfagent/perfagent/clients/go/internal/testagent"
)

func TestGrpcurlDrivesAnAgent(t *testing.T) {
	for _, reflection := range []string{"v1", "v1alpha"} {
		t.Run(reflection, func(t *testing.T) {
			g := &grpcurl{binary: build(t, reflection), agent: testagent.Start(t, "--log-level", "debug")}
			engine := testagent.StartEngine(t)

			listed := g.run(t, "", "list")
			for _, service := range []string{"AgentService", "AnalysisService", "InstanceService", "MetricsService", "OptimizationService"} {
				contains(t, listed, "perfagent.v1."+service)
			}
			contains(t, listed, "grpc.health.v1.Health")
			contains(t, g.run(t, "", "list", "perfagent.v1.MetricsService"), "perfagent.v1.MetricsService.WatchMetrics")
			described := g.run(t, "", "describe", "perfagent.v1.MetricsService.CollectMetrics")
			contains(t, described, "rpc CollectMetrics ( .perfagent.v1.CollectMetricsRequest ) returns ( .perfagent.v1.CollectMetricsResponse )")
			contains(t, described, "Safe to retry")
			contains(t, g.run(t, "", "describe", ".google.rpc.ErrorInfo"), "string reason = 1")

			register := fmt.Sprintf(`{"instance_id": "vllm-1", "metrics_url": %q, "scrape_interval": "0.2s", "window": "1s"}`, engine.URL)
			contains(t, g.run(t, register, "perfagent.v1.InstanceService/RegisterInstance"), `"instanceId": "vllm-1"`)
			g.watch(t, 2)
			collected := g.run(t, `{"instance_id": "vllm-1"}`, "perfagent.v1.MetricsService/CollectMetrics")
			contains(t, collected, `"tokensPerSecond"`)
			contains(t, g.run(t, "", "grpc.health.v1.Health/Check"), "SERVING")

			refused := g.fail(t, `{"instance_id": "nobody"}`, "perfagent.v1.MetricsService/CollectMetrics")
			for _, part := range []string{"Code: NotFound", `"reason": "INSTANCE_NOT_FOUND"`, `"hint":`} {
				contains(t, strings.ReplaceAll(refused, `":"`, `": "`), part)
			}

			g.agent.Stop()
			method := "/grpc.reflection." + reflection + ".ServerReflection/"
			other := map[string]string{"v1": "v1alpha", "v1alpha": "v1"}[reflection]
			contains(t, g.agent.Log(), method)
			if strings.Contains(g.agent.Log(), "/grpc.reflection."+other+".ServerReflection/") {
				t.Errorf("reflection %s was asked too", other)
			}
		})
	}
}

// TestGrpcurlNeedsNoReflection calls by the descriptor set that the agent's own program writes.
func TestGrpcurlNeedsNoReflection(t *testing.T) {
	set := filepath.Join(t.TempDir(), "perfagent.binpb")
	testagent.Run(t, "descriptor", "--output", set)
	g := &grpcurl{binary: build(t, "v1"), agent: testagent.Start(t, "--log-level", "debug")}
	engine := testagent.StartEngine(t)

	listed, err := exec.Command(g.binary, "-protoset", set, "list").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, listed)
	}
	contains(t, string(listed), "perfagent.v1.MetricsService")
	described, err := exec.Command(g.binary, "-protoset", set, "describe", "perfagent.v1.MetricsService.CollectMetrics").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, described)
	}
	contains(t, string(described), "Safe to retry")
	contains(t, string(described), "/api/v1/metrics/collect")

	g.flags = []string{"-protoset", set}
	target := fmt.Sprintf(`{"instance_id": "vllm-1", "metrics_url": %q, "window": "0s"}`, engine.URL)
	contains(t, g.run(t, target, "perfagent.v1.MetricsService/CollectMetrics"), `"generationTokensTotal"`)
	refused := g.fail(t, `{"instance_id": "nobody"}`, "perfagent.v1.MetricsService/CollectMetrics")
	contains(t, strings.ReplaceAll(refused, `":"`, `": "`), `"reason": "INSTANCE_NOT_FOUND"`)

	g.agent.Stop()
	contains(t, g.agent.Log(), "/perfagent.v1.MetricsService/CollectMetrics")
	if strings.Contains(g.agent.Log(), "/grpc.reflection.") {
		t.Error("reflection was asked")
	}
}

type grpcurl struct {
	binary string
	agent  *testagent.Agent
	flags  []string
}

// build is the path of the tool that a directory's go.mod pins.
func build(t *testing.T, directory string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "grpcurl")
	command := exec.Command("go", "build", "-o", binary, "github.com/fullstorydev/grpcurl/cmd/grpcurl")
	command.Dir = directory
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return binary
}

func (g *grpcurl) command(request string, words ...string) *exec.Cmd {
	arguments := append([]string{"-plaintext"}, g.flags...)
	if request != "" {
		arguments = append(arguments, "-d", request)
	}
	return exec.Command(g.binary, append(append(arguments, g.agent.Address), words...)...)
}

func (g *grpcurl) run(t *testing.T, request string, words ...string) string {
	t.Helper()
	output, err := g.command(request, words...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", words, err, output)
	}
	return string(output)
}

func (g *grpcurl) fail(t *testing.T, request string, words ...string) string {
	t.Helper()
	output, err := g.command(request, words...).CombinedOutput()
	if err == nil {
		t.Fatalf("%v: it succeeded\n%s", words, output)
	}
	return string(output)
}

// watch reads a stream until so many windows were measured.
func (g *grpcurl) watch(t *testing.T, windows int) {
	t.Helper()
	command := g.command("", "perfagent.v1.MetricsService/WatchMetrics")
	var trouble bytes.Buffer
	command.Stderr = &trouble
	output, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	giveUp := time.AfterFunc(testagent.Patience, func() { _ = command.Process.Kill() })
	defer func() {
		giveUp.Stop()
		_ = command.Process.Kill()
		_ = command.Wait()
	}()
	for messages := json.NewDecoder(output); windows > 0; {
		var message struct{ Event, InstanceID string }
		if err := messages.Decode(&message); err != nil {
			t.Fatalf("the stream ended: %v\n%s", err, trouble.String())
		}
		if message.Event == "WATCH_EVENT_WINDOW" && message.InstanceID == "vllm-1" {
			windows--
		}
	}
}

func contains(t *testing.T, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("no %q in\n%s", part, text)
	}
}
