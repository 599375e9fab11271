// Package testagent runs the real agent, and engines that are not there, for tests.
package testagent

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long tests wait for what must happen. None waits this long when all is well.
const Patience = 60 * time.Second

// Agent is a running agent with a state of its own.
type Agent struct {
	// HOST:PORT
	Address string

	t       testing.TB
	options []string
	process *exec.Cmd
	log     *log
	exited  chan struct{}
}

// Root is the top of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../../../..")
}

// Binary is the agent's: PERFAGENT_BIN, else what cargo has built.
func Binary(t testing.TB) string {
	t.Helper()
	if binary := os.Getenv("PERFAGENT_BIN"); binary != "" {
		return binary
	}
	for _, profile := range []string{"release", "debug"} {
		binary := filepath.Join(Root(), "target", profile, "perfagent")
		if _, err := os.Stat(binary); err == nil {
			return binary
		}
	}
	t.Fatal("there is no agent to test against: run `cargo build`, or set PERFAGENT_BIN to the path of one")
	return ""
}

// Run runs a command of the agent's binary and answers with what it printed.
func Run(t testing.TB, arguments ...string) string {
	t.Helper()
	command := exec.Command(Binary(t), arguments...)
	command.Env = environment()
	output, err := command.Output()
	if err != nil {
		t.Fatalf("perfagent %v: %v", arguments, err)
	}
	return string(output)
}

// Start starts an agent, which ends with the test. The options are those of `perfagent serve`.
func Start(t testing.TB, options ...string) *Agent {
	t.Helper()
	a := &Agent{t: t, options: append([]string{"--state-dir", t.TempDir()}, options...)}
	a.start("127.0.0.1:0")
	t.Cleanup(func() {
		a.Kill()
		if t.Failed() {
			t.Logf("log of the agent:\n%s", a.log)
		}
	})
	return a
}

// StartWith starts an agent with a config file.
func StartWith(t testing.TB, config string, options ...string) *Agent {
	t.Helper()
	file := filepath.Join(t.TempDir(), "perfagent.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return Start(t, append([]string{"--config", file}, options...)...)
}

// Restart starts it at the same address after Stop or Kill.
func (a *Agent) Restart() {
	a.t.Helper()
	a.start(a.Address)
}

// Stop ends it as an operator does, and waits until it is gone.
func (a *Agent) Stop() { a.end(syscall.SIGTERM) }

// Kill ends it as a lost machine does.
func (a *Agent) Kill() { a.end(syscall.SIGKILL) }

func (a *Agent) end(signal syscall.Signal) {
	// it may be gone already
	_ = a.process.Process.Signal(signal)
	<-a.exited
}

var listening = regexp.MustCompile(`listening on ([0-9.:]+)`)

func (a *Agent) start(address string) {
	a.t.Helper()
	a.process = exec.Command(Binary(a.t), append([]string{"serve", "--listen", address, "--log-format", "json"}, a.options...)...)
	a.process.Env = environment()
	output, err := a.process.StderrPipe()
	if err == nil {
		err = a.process.Start()
	}
	if err != nil {
		a.t.Fatal(err)
	}
	a.exited = make(chan struct{})
	a.log = &log{}
	found := make(chan string, 1)
	go a.follow(output, found)
	select {
	case a.Address = <-found:
	case <-a.exited:
		a.t.Fatalf("the agent did not start:\n%s", a.log)
	case <-time.After(Patience):
		a.t.Fatal("the agent does not listen")
	}
}

// Log is what the agent has logged since it was started.
func (a *Agent) Log() string { return a.log.String() }

// follow keeps the log, and closes exited when the agent is gone.
func (a *Agent) follow(output io.Reader, found chan<- string) {
	process, exited, kept := a.process, a.exited, a.log
	var once sync.Once
	for lines := bufio.NewScanner(output); lines.Scan(); {
		kept.add(lines.Text())
		if match := listening.FindStringSubmatch(lines.Text()); match != nil {
			once.Do(func() { found <- match[1] })
		}
	}
	_ = process.Wait()
	close(exited)
}

// environment is that of the test without what would configure the agent.
func environment() []string {
	var kept []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "PERFAGENT_") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// log is written while it is read.
type log struct {
	mutex sync.Mutex
	lines []string
}

func (l *log) add(line string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.lines = append(l.lines, line)
}

func (l *log) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return strings.Join(l.lines, "\n")
}
