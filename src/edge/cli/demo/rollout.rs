//! What is recommended is carried out by a workflow, and what came of it is measured.

use std::time::Duration;

use tonic::transport::Channel;
use uuid::Uuid;

use super::failed;
use crate::edge::cli::Failure;
use crate::edge::cli::optimize::sheet::change;
use crate::edge::cli::terminal::{clean, print};
use crate::edge::cli::workflow::page::effects_table;
use crate::edge::grpc::convert::duration;
use crate::edge::grpc::pb;
use pb::watch_workflow_response::Told;
use pb::workflow_service_client::WorkflowServiceClient;

const PLAN: Duration = Duration::from_secs(30);

/// Carries out what is recommended for an instance, and shows each step and the gain.
pub(super) async fn roll_out(channel: &Channel, id: &str) -> Result<(), Failure> {
    print(&format!(
        "workflow: what is recommended for {id} is applied and measured, here without the approval that is else waited for\n\n"
    ));
    let request = pb::StartWorkflowRequest {
        instance_id: id.to_owned(),
        ..pb::StartWorkflowRequest::default()
    };
    print(&came_of(&carry_out(channel, request).await?));
    Ok(())
}

/// Carries a workflow out without an approval, and shows each step; the workflow as it ended.
pub(super) async fn carry_out(
    channel: &Channel,
    request: pb::StartWorkflowRequest,
) -> Result<pb::Workflow, Failure> {
    let mut client = WorkflowServiceClient::new(channel.clone());
    let request = pb::StartWorkflowRequest {
        request_id: Uuid::new_v4().to_string(),
        auto_approve: true,
        wait: duration(PLAN),
        ..request
    };
    let answer = client.start_workflow(request).await;
    let answer = answer
        .map_err(|status| failed(&status.message()))?
        .into_inner();
    let workflow_id = answer.workflow.unwrap_or_default().workflow_id;
    let request = pb::WatchWorkflowRequest {
        workflow_id: workflow_id.clone(),
        ..pb::WatchWorkflowRequest::default()
    };
    let stream = client.watch_workflow(request).await;
    let mut stream = stream
        .map_err(|status| failed(&status.message()))?
        .into_inner();
    // it ends with the workflow
    while let Some(message) = stream
        .message()
        .await
        .map_err(|status| failed(&status.message()))?
    {
        if let Some(Told::Event(event)) = message.told {
            print(&told(&event));
        }
    }
    let answer = client
        .get_workflow(pb::GetWorkflowRequest { workflow_id })
        .await;
    let answer = answer
        .map_err(|status| failed(&status.message()))?
        .into_inner();
    Ok(answer.workflow.unwrap_or_default())
}

/// What happened, on a line; of a plan also what it changes.
fn told(event: &pb::WorkflowEvent) -> String {
    let changes = event.plan.iter().flat_map(|plan| &plan.changes).map(change);
    let mut text = format!(
        "  {:<16}  {}\n",
        clean(&event.r#type),
        clean(&event.message)
    );
    for change in changes {
        text += &format!("  {:<16}  {change}\n", "");
    }
    text
}

/// What was measured beside what was predicted.
fn came_of(of: &pb::Workflow) -> String {
    let mut text = "\n  what came of it, beside what was predicted:\n".to_owned();
    if let Some(effects) = &of.effects {
        for line in effects_table(effects).lines() {
            text += &format!("  {line}\n");
        }
    }
    text + "\n"
}
