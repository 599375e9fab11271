package perfagent

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/perfagent/perfagent/clients/go/internal/testagent"
	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

// The rules of each RPC are those that its comment in the contract gives.
func TestRulesAreThoseOfTheContract(t *testing.T) {
	said := 0
	for _, file := range protos(t) {
		for service, comments := range rpcComments(t, file) {
			for name, comment := range comments {
				said++
				method := "/perfagent.v1." + service + "/" + name
				rule, known := rpcs[method]
				if !known {
					t.Errorf("%s is not in the table of RPCs", method)
					continue
				}
				if safe := strings.Contains(comment, "Safe to retry"); safe != rule.repeatable {
					t.Errorf("%s: repeatable is %v, and the contract says %v", method, rule.repeatable, safe)
				}
				checkDeadline(t, method, comment, rule)
			}
		}
	}
	if said != len(rpcs) || said == 0 {
		t.Errorf("the contract has %d RPCs, the table %d", said, len(rpcs))
	}
}

var deadline = regexp.MustCompile(`Deadline: (none|(?:the (?:longest )?window plus )?(\d+) seconds?)`)

func checkDeadline(t *testing.T, method, comment string, rule rpc) {
	t.Helper()
	found := deadline.FindStringSubmatch(comment)
	switch {
	case found == nil:
		t.Errorf("%s: no deadline in the contract: %s", method, comment)
	case found[1] == "none":
		if rule.within != nil {
			t.Errorf("%s: has a deadline, and the contract has none", method)
		}
	case rule.within == nil:
		t.Errorf("%s: has no deadline, and the contract says %s", method, found[1])
	default:
		seconds, _ := strconv.Atoi(found[2])
		want := time.Duration(seconds) * time.Second
		request := requestOf(t, method)
		if strings.Contains(found[1], "window") {
			want += 7 * time.Second
		}
		if got := rule.within(request); got != want {
			t.Errorf("%s: within %v, and the contract says %v", method, got, want)
		}
	}
}

// requestOf is a request of the method, with a longest window of 7 seconds where it has any.
func requestOf(t *testing.T, method string) proto.Message {
	t.Helper()
	one := &pb.CollectMetricsRequest{Window: durationpb.New(7 * time.Second)}
	switch method {
	case pb.MetricsService_CollectMetrics_FullMethodName:
		return one
	case pb.AnalysisService_DetectBottlenecks_FullMethodName:
		return &pb.DetectBottlenecksRequest{Window: durationpb.New(7 * time.Second)}
	case pb.AnalysisService_EvaluateSlos_FullMethodName:
		return &pb.EvaluateSlosRequest{Window: durationpb.New(7 * time.Second)}
	case pb.OptimizationService_RecommendOptimizations_FullMethodName:
		return &pb.RecommendOptimizationsRequest{Window: durationpb.New(7 * time.Second)}
	case pb.OptimizationService_GetInstanceConfig_FullMethodName:
		return &pb.GetInstanceConfigRequest{Window: durationpb.New(7 * time.Second)}
	case pb.OptimizationService_PredictPerformance_FullMethodName:
		return &pb.PredictPerformanceRequest{Window: durationpb.New(7 * time.Second)}
	case pb.MetricsService_BatchCollectMetrics_FullMethodName:
		short := &pb.CollectMetricsRequest{MetricsUrl: "http://x"}
		return &pb.BatchCollectMetricsRequest{Requests: []*pb.CollectMetricsRequest{short, one}}
	}
	name := protoreflect.FullName(strings.Replace(method[1:], "/", ".", 1))
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		t.Fatalf("%s: %v; run clients/go/generate", method, err)
	}
	request, err := protoregistry.GlobalTypes.FindMessageByName(found.(protoreflect.MethodDescriptor).Input().FullName())
	if err != nil {
		t.Fatal(err)
	}
	return request.New().Interface()
}

func protos(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(testagent.Root(), "proto/perfagent/v1/*.proto"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no protos: %v", err)
	}
	return files
}

// rpcComments is the comment above each RPC of each service in a file, on one line.
func rpcComments(t *testing.T, file string) map[string]map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	services := map[string]map[string]string{}
	var service string
	var comment []string
	for line := range strings.Lines(string(text)) {
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \n({", r) })
		switch {
		case len(words) == 0:
			comment = nil
		case words[0] == "//":
			comment = append(comment, words[1:]...)
			continue
		case words[0] == "service":
			service = words[1]
			services[service] = map[string]string{}
		case words[0] == "rpc":
			services[service][words[1]] = strings.Join(comment, " ")
		}
		comment = nil
	}
	return services
}

// What is committed is what `clients/go/generate` makes.
func TestGeneratedCodeIsFresh(t *testing.T) {
	module := filepath.Join(testagent.Root(), "clients/go")
	fresh := t.TempDir()
	command := exec.Command(filepath.Join(module, "generate"), fresh)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	made, kept := generated(t, fresh), generated(t, module)
	for name, text := range made {
		if kept[name] != text {
			t.Errorf("%s is not what the contract says; run clients/go/generate", name)
		}
	}
	for name := range kept {
		if _, is := made[name]; !is {
			t.Errorf("%s is of nothing in the contract; run clients/go/generate", name)
		}
	}
	if len(made) < 3 {
		t.Errorf("only %d files were made", len(made))
	}
}

// generated is the text of each generated file under a directory.
func generated(t *testing.T, top string) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"perfagent/reasons.go", "perfagent/v1/*.pb.go"} {
		files, _ := filepath.Glob(filepath.Join(top, pattern))
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := filepath.Rel(top, file)
			texts[name] = string(text)
		}
	}
	return texts
}
