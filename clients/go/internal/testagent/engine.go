package testagent

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// Engine answers as a vLLM that generates a thousand tokens between two scrapes.
type Engine struct {
	// Where its metrics are.
	URL string

	scrapes atomic.Int64
	waiting atomic.Int64
	hangs   atomic.Bool
	release chan struct{}
}

// StartEngine starts an engine, which ends with the test.
func StartEngine(t testing.TB) *Engine {
	e := &Engine{release: make(chan struct{})}
	server := httptest.NewServer(e)
	e.URL = server.URL + "/metrics"
	t.Cleanup(func() {
		close(e.release)
		server.Close()
	})
	return e
}

// Hang lets the engine answer nothing any more.
func (e *Engine) Hang() { e.hangs.Store(true) }

// Waiting is how many requests a hanging engine holds.
func (e *Engine) Waiting() int64 { return e.waiting.Load() }

func (e *Engine) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if e.hangs.Load() {
		e.waiting.Add(1)
		defer e.waiting.Add(-1)
		select {
		case <-e.release:
		case <-request.Context().Done():
		}
		return
	}
	switch request.URL.Path {
	case "/version":
		fmt.Fprint(w, `{"version":"0.32.0"}`)
	case "/metrics":
		n := e.scrapes.Add(1)
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		metrics := func(kind, name string, value any) {
			fmt.Fprintf(w, "# TYPE vllm:%s %s\nvllm:%s{engine=\"0\",model_name=\"m\"} %v\n", name, kind, name, value)
		}
		metrics("gauge", "num_requests_running", 2)
		metrics("gauge", "num_requests_waiting", 1)
		metrics("gauge", "kv_cache_usage_perc", 0.25)
		metrics("counter", "generation_tokens_total", 1000*n)
		metrics("counter", "prompt_tokens_total", 500*n)
		fmt.Fprintf(w, "# TYPE vllm:request_success_total counter\nvllm:request_success_total{engine=\"0\",model_name=\"m\",finished_reason=\"stop\"} %d\n", 10*n)
	default:
		http.NotFound(w, request)
	}
}
