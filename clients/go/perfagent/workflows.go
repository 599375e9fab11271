package perfagent

import (
	"context"
	"errors"
	"iter"
	"strconv"

	"google.golang.org/protobuf/proto"

	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

// WatchWorkflow tells each event of a workflow, from its first or after a revision, and ends when the workflow has ended.
//
// A watch that breaks off goes on after the last revision, without gap or duplicate: when the agent is stopped, killed or
// started anew, when a stream has lived as long as streams live, when the reader was too slow. Bookmarks, which tell only a
// revision, are not told. The last pair has the error that ended the watch, if any; [ErrLogCompacted] where events that
// were missed are not kept any more.
func (c *Client) WatchWorkflow(ctx context.Context, request *pb.WatchWorkflowRequest) iter.Seq2[*pb.WatchWorkflowResponse, error] {
	next := proto.CloneOf(request)
	messages := watchFrom(ctx, c, pb.WorkflowService_WatchWorkflow_FullMethodName, next, c.WorkflowServiceClient.WatchWorkflow, nil)
	return told(messages, func(message *pb.WatchWorkflowResponse) bool {
		next.AfterRevision = max(next.AfterRevision, message.GetRevision())
		return message.GetBookmark() == nil
	})
}

// WatchWorkflows tells each event of all workflows, or of those of an instance, from now on or after a revision. It goes on
// as [Client.WatchWorkflow] does, until the context ends. Workflows of a snapshot are told again where the watch breaks off
// before the last of them.
func (c *Client) WatchWorkflows(ctx context.Context, request *pb.WatchWorkflowsRequest) iter.Seq2[*pb.WatchWorkflowsResponse, error] {
	next := proto.CloneOf(request)
	broke := func(failed *Error) {
		// nothing was told yet: what happens meanwhile is not to be missed
		revision, err := strconv.ParseUint(failed.Metadata["revision"], 10, 64)
		if err == nil && next.GetAfterRevision() == 0 && !next.GetIncludeSnapshot() {
			next.AfterRevision = revision
		}
	}
	messages := watchFrom(ctx, c, pb.WorkflowService_WatchWorkflows_FullMethodName, next, c.WorkflowServiceClient.WatchWorkflows, broke)
	return told(messages, func(message *pb.WatchWorkflowsResponse) bool {
		next.AfterRevision = max(next.AfterRevision, message.GetRevision())
		return message.GetBookmark() == nil
	})
}

// told is the messages that are to be told; each is shown to what moves the request on before it is.
func told[A any](messages iter.Seq2[*A, error], isTold func(*A) bool) iter.Seq2[*A, error] {
	return func(yield func(*A, error) bool) {
		for message, err := range messages {
			if err == nil && !isTold(message) {
				continue
			}
			if !yield(message, err) {
				return
			}
		}
	}
}

// WaitForCompletion waits until a workflow has ended, in whatever way, and answers with how: its status and outcome. Where
// the context ends before, the workflow goes on.
func (c *Client) WaitForCompletion(ctx context.Context, workflowID string) (*pb.Workflow, error) {
	for {
		var ended error
		request := &pb.WatchWorkflowRequest{WorkflowId: workflowID, IncludeSnapshot: true}
		for _, err := range c.WatchWorkflow(ctx, request) {
			ended = err
		}
		switch {
		case errors.Is(ended, ErrLogCompacted):
			// only how it ends matters here, and not what led to it
		case ended != nil:
			return nil, ended
		default:
			answer, err := c.GetWorkflow(ctx, &pb.GetWorkflowRequest{WorkflowId: workflowID})
			return answer.GetWorkflow(), err
		}
	}
}

// ListWorkflows lists workflows, the newest first, page after page. Plans and effects are in GetWorkflow only.
func (c *Client) ListWorkflows(ctx context.Context, request *pb.ListWorkflowsRequest) iter.Seq2[*pb.Workflow, error] {
	page := proto.CloneOf(request)
	return pages(func() ([]*pb.Workflow, string, error) {
		answer, err := c.WorkflowServiceClient.ListWorkflows(ctx, page)
		page.PageToken = answer.GetNextPageToken()
		return answer.GetWorkflows(), page.PageToken, err
	})
}

// ListConfigSnapshots lists kept settings, the newest first, page after page.
func (c *Client) ListConfigSnapshots(ctx context.Context, request *pb.ListConfigSnapshotsRequest) iter.Seq2[*pb.ConfigSnapshot, error] {
	page := proto.CloneOf(request)
	return pages(func() ([]*pb.ConfigSnapshot, string, error) {
		answer, err := c.WorkflowServiceClient.ListConfigSnapshots(ctx, page)
		page.PageToken = answer.GetNextPageToken()
		return answer.GetSnapshots(), page.PageToken, err
	})
}

// pages is what all pages have. Each call answers with the next one, and a token that is empty on the last.
func pages[T any](next func() ([]*T, string, error)) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for {
			all, token, err := next()
			if err != nil {
				yield(nil, err)
				return
			}
			for _, one := range all {
				if !yield(one, nil) {
					return
				}
			}
			if token == "" {
				return
			}
		}
	}
}
