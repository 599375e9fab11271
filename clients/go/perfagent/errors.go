package perfagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Error is what became of a call that failed: the agent's own words, or those of gRPC where it could not be reached.
//
//	var failed *perfagent.Error
//	if errors.As(err, &failed) { fmt.Println(failed.Reason, failed.Hint) }
//	if errors.Is(err, perfagent.ErrInstanceNotFound) { … }
//	if status.Code(err) == codes.Unavailable { … }
type Error struct {
	// The RPC, such as `CollectMetrics`.
	RPC string
	// The gRPC status code.
	Code codes.Code
	// Why, for programs: one of the Err constants, or one that a later agent has. Empty where the agent did not answer.
	Reason Reason
	// Why, for people.
	Message string
	// What to do about it. Empty where nothing is known.
	Hint string
	// Fields of the request that are wrong.
	Violations []Violation
	// When the agent says that the call may be tried again. Zero where it does not say.
	RetryAfter time.Duration
	// What else the agent tells, such as the `url` and the `step` of a scrape that failed.
	Metadata map[string]string

	status *status.Status
}

// Violation is a field of a request that is wrong.
type Violation struct {
	// Its path, such as `instance.metrics_urls[1]`.
	Field string
	// What is wrong with it.
	Description string
}

// Reason says why a call failed. It is an error only so that errors.Is finds it in an [*Error].
type Reason string

func (r Reason) Error() string { return string(r) }

func (e *Error) Error() string {
	what := string(e.Reason)
	if what == "" {
		what = e.Code.String()
	}
	text := fmt.Sprintf("%s: %s: %s", e.RPC, what, e.Message)
	for _, violation := range e.Violations {
		if !strings.Contains(text, violation.Description) {
			text += fmt.Sprintf("; %s: %s", violation.Field, violation.Description)
		}
	}
	// the agent says it in the message too
	if e.Hint != "" && !strings.Contains(text, e.Hint) {
		text += fmt.Sprintf(" (%s)", e.Hint)
	}
	return text
}

// Is tells whether it has this reason.
func (e *Error) Is(target error) bool {
	reason, ok := target.(Reason)
	return ok && reason == e.Reason
}

// Unwrap is context.Canceled or context.DeadlineExceeded where that is what ended the call.
func (e *Error) Unwrap() error {
	switch e.Code {
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	}
	return nil
}

// GRPCStatus lets status.Code and status.FromError read it.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// domain is what ErrorInfo of every agent says.
const domain = "perfagent"

// errorOf is what gRPC answered as an *Error; nil and io.EOF, which ends a stream, are none.
func errorOf(method string, err error) error {
	var already *Error
	if err == nil || err == io.EOF || errors.As(err, &already) {
		return err
	}
	failed, ok := status.FromError(err)
	if !ok {
		failed = status.FromContextError(err)
	}
	e := &Error{
		RPC:     method[strings.LastIndex(method, "/")+1:],
		Code:    failed.Code(),
		Message: failed.Message(),
		status:  failed,
	}
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain {
				e.Reason = Reason(detail.GetReason())
				e.Metadata = detail.GetMetadata()
				e.Hint = detail.GetMetadata()["hint"]
			}
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				e.Violations = append(e.Violations, Violation{violation.GetField(), violation.GetDescription()})
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	switch {
	case e.Reason == "":
		e.Hint = hintOf(e.Message)
	case e.Reason == ErrUnauthenticated && e.Hint == "":
		e.Hint = "set PERFAGENT_TOKEN, or give WithToken or WithTokenFile a token made with `perfagent token create`"
	}
	return e
}

// An agent that wants a client certificate says so and hangs up, and what it says is often lost.
const hungUp = "see the agent's log: it may be gone, or want https:// or a client certificate, see WithClientCert"

// hintOf says what to do about a connection that failed, by what Go and gRPC say of it.
func hintOf(message string) string {
	for _, known := range []struct{ words, hint string }{
		{"connection refused", "start an agent with `perfagent serve`, and give its address as HOST:PORT"},
		{"first record does not look like a TLS handshake", "the agent is without TLS: give its address with http://"},
		{"error reading server preface", "it is no agent, or one with TLS or a client CA: give https:// and WithClientCert"},
		{"certificate signed by unknown authority", "give the certificate of who signed the agent's with WithCACert"},
		{"certificate is valid for", "call the agent by a name of its certificate"},
		{"connection reset by peer", hungUp},
		{"broken pipe", hungUp},
		{"certificate required", "give a certificate that the agent's client CA has signed with WithClientCert"},
	} {
		if strings.Contains(message, known.words) {
			return known.hint
		}
	}
	return ""
}
