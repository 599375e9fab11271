package perfagent

import (
	"context"
	"errors"
	"io"
	"iter"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

// WatchMetrics watches registered instances: how each is now, and then each window as it is measured.
//
// A watch that breaks off is resumed until the context ends: when the agent is stopped or started anew, when a stream
// has lived as long as streams live, when the agent is silent. After that each instance is told as it is then. The
// last pair has the error that ended the watch; there is none when all instances that were named are deleted.
func (c *Client) WatchMetrics(ctx context.Context, request *pb.WatchMetricsRequest) iter.Seq2[*pb.WatchMetricsResponse, error] {
	return watch(ctx, c, pb.MetricsService_WatchMetrics_FullMethodName, request, c.MetricsServiceClient.WatchMetrics)
}

// WatchBottlenecks watches what holds registered instances back: what is open on each now, and then what opens, changes
// and is resolved. It is resumed as WatchMetrics is.
func (c *Client) WatchBottlenecks(ctx context.Context, request *pb.WatchBottlenecksRequest) iter.Seq2[*pb.WatchBottlenecksResponse, error] {
	return watch(ctx, c, pb.AnalysisService_WatchBottlenecks_FullMethodName, request, c.AnalysisServiceClient.WatchBottlenecks)
}

// BatchCollectMetrics measures many targets at once; each result comes as it is ready, and a failure of one is its
// result. An error, which comes last, is one of the whole call.
func (c *Client) BatchCollectMetrics(ctx context.Context, request *pb.BatchCollectMetricsRequest) iter.Seq2[*pb.BatchCollectMetricsResponse, error] {
	return results(ctx, c, pb.MetricsService_BatchCollectMetrics_FullMethodName, request, c.MetricsServiceClient.BatchCollectMetrics)
}

// ListInstances lists instances by id, page after page.
func (c *Client) ListInstances(ctx context.Context, request *pb.ListInstancesRequest) iter.Seq2[*pb.Instance, error] {
	page := proto.CloneOf(request)
	return pages(func() ([]*pb.Instance, string, error) {
		answer, err := c.InstanceServiceClient.ListInstances(ctx, page)
		page.PageToken = answer.GetNextPageToken()
		return answer.GetInstances(), page.PageToken, err
	})
}

// opener begins a stream of answers of type A to a request of type Q, as generated clients do.
type opener[Q proto.Message, A any] func(context.Context, Q, ...grpc.CallOption) (grpc.ServerStreamingClient[A], error)

// errStopped says that the reader wants no more.
var errStopped = errors.New("stopped")

// results is a stream that ends by itself. It is begun again only while nothing of it has come.
func results[Q proto.Message, A any](ctx context.Context, c *Client, method string, request Q, open opener[Q, A]) iter.Seq2[*A, error] {
	return func(yield func(*A, error) bool) {
		rpc := rpcs[method]
		var ended error
		err := c.policy.repeat(ctx, rpc.repeatable, func() error {
			ctx, cancel := rpc.bounded(ctx, request)
			defer cancel()
			heard, err := follow(ctx, 0, method, request, open, yield)
			if heard {
				// too late to begin again
				ended, err = err, nil
			}
			return err
		})
		if err == nil {
			err = ended
		}
		if err != nil && err != errStopped {
			yield(nil, err)
		}
	}
}

// watch is a stream that goes on until the context ends, or the agent ends it for good.
func watch[Q proto.Message, A any](ctx context.Context, c *Client, method string, request Q, open opener[Q, A]) iter.Seq2[*A, error] {
	return watchFrom(ctx, c, method, request, open, nil)
}

// watchFrom is a watch whose request may be another one when it is begun again: the reader, and what is told of each error
// that broke it off, may change it.
func watchFrom[Q proto.Message, A any](ctx context.Context, c *Client, method string, request Q, open opener[Q, A], broke func(*Error)) iter.Seq2[*A, error] {
	return func(yield func(*A, error) bool) {
		for failures := 1; ; failures++ {
			heard, err := follow(ctx, c.policy.silence, method, request, open, yield)
			if err == nil || err == errStopped {
				return
			}
			if heard {
				failures = 1
			}
			var failed *Error
			if ctx.Err() != nil || c.closed() || !errors.As(err, &failed) || !resumes(failed) {
				yield(nil, err)
				return
			}
			if broke != nil {
				broke(failed)
			}
			wait := pauseAfter(failures, failed)
			c.policy.log.InfoContext(ctx, "watch broke off, and is resumed", "rpc", failed.RPC, "error", err, "wait", wait)
			if !pause(ctx, wait) {
				yield(nil, errorOf(method, ctx.Err()))
				return
			}
		}
	}
}

// resumes tells whether a watch that ended so is to go on.
func resumes(err *Error) bool {
	if passes(err) || err.Reason == ErrWatcherTooSlow {
		return true
	}
	// proxies end streams as they like; the agent gives its own errors a reason
	switch err.Code {
	case codes.Unknown, codes.Internal, codes.Canceled, codes.DeadlineExceeded:
		return err.Reason == ""
	}
	return false
}

const forever = time.Duration(math.MaxInt64)

// follow reads one stream to its end, and tells whether anything came of it. The silence is how long it waits for a
// message; 0 means for ever.
func follow[Q proto.Message, A any](ctx context.Context, silence time.Duration, method string, request Q, open opener[Q, A], yield func(*A, error) bool) (heard bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := status.Errorf(codes.Unavailable, "no message for %v, not even a heartbeat", silence)
	if silence == 0 {
		silence = forever
	}
	watchdog := time.AfterFunc(silence, func() { cancel(silent) })
	defer watchdog.Stop()
	opened, err := open(ctx, request)
	for err == nil {
		var message *A
		if message, err = opened.Recv(); err != nil {
			break
		}
		heard = true
		// while the reader works nothing is waited for
		watchdog.Stop()
		if !yield(message, nil) {
			return heard, errStopped
		}
		watchdog.Reset(silence)
	}
	if err == io.EOF {
		return heard, nil
	}
	if context.Cause(ctx) == silent {
		err = silent
	}
	return heard, errorOf(method, err)
}

// stream gives the errors of a stream their type.
func stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	opened, err := open(ctx, desc, conn, method, options...)
	if err != nil {
		return nil, errorOf(method, err)
	}
	return &typedStream{opened, method}, nil
}

type typedStream struct {
	grpc.ClientStream
	method string
}

func (s *typedStream) SendMsg(message any) error {
	return errorOf(s.method, s.ClientStream.SendMsg(message))
}

func (s *typedStream) RecvMsg(message any) error {
	return errorOf(s.method, s.ClientStream.RecvMsg(message))
}
