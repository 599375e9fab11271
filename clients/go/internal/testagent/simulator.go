package testagent

import (
	"bufio"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// Simulated is what an agent needs in its config file to watch and change a simulated engine, sim-1, in which 32 clients
// wait for one of 4 places. The engine ends with the test.
func Simulated(t testing.TB) string {
	t.Helper()
	engine := exec.Command(Binary(t), "simulate", "--port", "0", "--max-num-seqs", "4", "--clients", "32", "--output-tokens", "40")
	engine.Env = environment()
	output, err := engine.StdoutPipe()
	if err == nil {
		err = engine.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = engine.Process.Kill()
		_ = engine.Wait()
	})
	line, err := bufio.NewReader(output).ReadString('\n')
	url := regexp.MustCompile(`http://\S+/metrics`).FindString(line)
	if err != nil || url == "" {
		t.Fatalf("the simulator says %q: %v", line, err)
	}
	return strings.Replace(`
[[actuators]]
name = "sim"
type = "simulator"

[[instances]]
instance_id = "sim-1"
actuator = "sim"
metrics_url = "URL"
scrape_interval = "200ms"
window = "5s"
`, "URL", url, 1)
}
