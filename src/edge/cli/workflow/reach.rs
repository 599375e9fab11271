//! Reaching the workflows of an agent, and finding the one that is meant.

use std::time::Duration;

use uuid::Uuid;

use crate::edge::cli::collect::failure_of;
use crate::edge::cli::connect::{AgentChannel, ConnectArgs, ConnectedAgent};
use crate::edge::cli::terminal::clean;
use crate::edge::cli::{Failure, Outcome, json};
use crate::edge::grpc::pb;
use pb::workflow_service_client::WorkflowServiceClient;

pub(super) const READ_DEADLINE: Duration = Duration::from_secs(5);
pub(super) const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// What a workflow is looked up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To look at.
    Look,
    /// To do something to.
    Act,
}

/// An agent that can be asked about workflows.
pub(super) struct Reached {
    pub(super) agent: ConnectedAgent,
    /// What commands need behind them to reach it too.
    pub(super) server: String,
}

impl Reached {
    pub(super) async fn by(connect: &ConnectArgs) -> Result<Self, Failure> {
        Ok(Self {
            agent: connect.connect().await?,
            server: connect.as_flag(),
        })
    }

    pub(super) fn client(&self) -> WorkflowServiceClient<AgentChannel> {
        WorkflowServiceClient::new(self.agent.channel())
    }

    /// A failed call, in the words of this command.
    pub(super) fn failed(&self, status: &tonic::Status) -> Failure {
        self.agent.explain(status).unwrap_or_else(|| {
            let mut failure = failure_of(status);
            for (field, flag) in FLAGS {
                failure.message = renamed(&failure.message, field, flag);
            }
            failure
        })
    }

    /// The workflow of a reference: its id, or else `latest` or an instance, whose unfinished workflow is meant, or where
    /// there is none the last.
    ///
    /// # Errors
    /// There is none; there are several, and one is to be acted on.
    pub(super) async fn id_of(&self, reference: &str, purpose: Purpose) -> Result<String, Failure> {
        if let Ok(id) = Uuid::try_parse(reference) {
            return Ok(id.to_string());
        }
        let instance = match reference {
            "latest" => "",
            instance => instance,
        };
        let open = self.newest(instance, &UNFINISHED).await?;
        match open.as_slice() {
            [] => {}
            [several, ..] if open.len() > 1 && purpose == Purpose::Act => {
                let ids: Vec<String> = open.iter().map(|one| clean(&one.workflow_id)).collect();
                let hint = format!(
                    "give one of {}, such as {}",
                    ids.join(", "),
                    several.workflow_id
                );
                let text = format!("several workflows are under way: {}", clean(reference));
                return Err(Failure::new(Outcome::Usage, text, Some(&hint)));
            }
            [first, ..] => return Ok(first.workflow_id.clone()),
        }
        let last = self.newest(instance, &[]).await?;
        let last = last.into_iter().next().map(|one| one.workflow_id);
        last.ok_or_else(|| {
            let text = match instance {
                "" => "there are no workflows".to_owned(),
                instance => format!("there are no workflows of an instance {}", clean(instance)),
            };
            let hint = "`perfagent workflow list` shows which there are, `perfagent workflow start` starts one";
            Failure::new(Outcome::Failed, text, Some(hint))
        })
    }

    async fn newest(
        &self,
        instance: &str,
        statuses: &[pb::WorkflowStatus],
    ) -> Result<Vec<pb::Workflow>, Failure> {
        let request = request(
            pb::ListWorkflowsRequest {
                page_size: 10,
                instance_id: instance.to_owned(),
                statuses: statuses.iter().map(|one| (*one).into()).collect(),
                ..pb::ListWorkflowsRequest::default()
            },
            READ_DEADLINE,
        );
        let answer = self.client().list_workflows(request).await;
        let answer = answer.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner().workflows)
    }

    /// A workflow as it is.
    pub(super) async fn get(&self, id: &str) -> Result<pb::GetWorkflowResponse, Failure> {
        let request = request(
            pb::GetWorkflowRequest {
                workflow_id: id.to_owned(),
            },
            READ_DEADLINE,
        );
        let answer = self.client().get_workflow(request).await;
        Ok(answer.map_err(|status| self.failed(&status))?.into_inner())
    }
}

/// Those that can still be acted on.
const UNFINISHED: [pb::WorkflowStatus; 5] = [
    pb::WorkflowStatus::PendingApproval,
    pb::WorkflowStatus::Approved,
    pb::WorkflowStatus::InProgress,
    pb::WorkflowStatus::Paused,
    pb::WorkflowStatus::RollbackFailed,
];

/// Fields of requests by the flags that set them, where they are other ones than of `collect`.
const FLAGS: [(&str, &str); 15] = [
    ("--id", "INSTANCE"),
    ("workflow_id", "WORKFLOW"),
    ("workflow_type", "--type"),
    ("snapshot_id", "--snapshot"),
    ("optimization_id", "--optimization"),
    ("auto_approve", "--auto-approve"),
    ("gate", "--approvals, --separate-requester"),
    ("gate.approvals", "--approvals"),
    ("gate.approvers", "--approver"),
    ("gate.timeout", "--approval-timeout"),
    ("gate.on_timeout", "--on-timeout"),
    ("plan_timeout", "--plan-timeout"),
    ("ready_timeout", "--ready-timeout"),
    ("observe_timeout", "--observe-timeout"),
    ("rollback_timeout", "--rollback-timeout"),
];

/// A message whose lines begin with the flag instead of the field.
fn renamed(message: &str, field: &str, flag: &str) -> String {
    let lines = message.lines().map(|line| match line.strip_prefix(field) {
        Some(rest) if rest.starts_with([':', '[']) => format!("{flag}{rest}"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<String>>().join("\n")
}

/// A request with its deadline.
pub(super) fn request<T>(message: T, deadline: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(deadline);
    request
}

/// A message as the JSON of this command.
pub(super) fn json_of(name: &str, message: &impl prost::Message) -> Result<String, Failure> {
    let value = json::to_json(&format!("perfagent.v1.{name}"), message);
    let value = value.map_err(|error| Failure::new(Outcome::Failed, error, None))?;
    Ok(json::text_of(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_by_its_flag() {
        let text =
            "gate.approvals: too many\nplan_timeouts: no such flag\ngate.approvers[1]: empty";
        let renamed = FLAGS.iter().fold(text.to_owned(), |text, (field, flag)| {
            renamed(&text, field, flag)
        });
        assert_eq!(
            renamed,
            "--approvals: too many\nplan_timeouts: no such flag\n--approver[1]: empty"
        );
    }
}
