//! Two changes that go to one replica of a pool first: one that helps and goes to all, one that harms and is undone.

use std::time::Duration;

use tonic::transport::Channel;

use super::Trouble;
use super::rollout::carry_out;
use crate::edge::cli::Failure;
use crate::edge::cli::terminal::{colour_on_stdout, print};
use crate::edge::cli::workflow::page::decided;
use crate::edge::grpc::convert::duration;
use crate::edge::grpc::convert_struct::struct_of;
use crate::edge::grpc::pb;

/// What they are tried on.
pub(super) const POOL: Trouble = Trouble {
    id: "demo-pool",
    built_in: "has three replicas that may run 4 requests at once each: changes go to one of them first",
    scenario: include_str!("pool.toml"),
};

/// A verdict takes 20 intervals: shorter ones than elsewhere, so that nobody waits.
pub(super) const INTERVAL: Duration = Duration::from_millis(500);
pub(super) const WINDOW: Duration = Duration::from_secs(4);

const FIRST: f64 = 0.33;
const WARM_UP: Duration = Duration::from_secs(1);
/// As long again on a machine that is too busy to tell.
const OBSERVE: Duration = Duration::from_secs(20);
const DRAIN: Duration = Duration::from_secs(1);
/// Nobody is asked where it does not tell.
const DECISION: Duration = Duration::from_secs(1);
/// More requests at once make gaps between tokens a few percent longer.
const TOLERANCE: f64 = 0.2;

const ABOUT: &str = "canaries: a change goes to one of the three replicas of demo-pool first, and is held against the two \
others at the same time. What is worse there by more than 20 % is undone; else the change goes to all three

  WITH: on the replica that has the change; WITHOUT: on the others. DIFFERENCE: how many times as much with the change, or how
  many points of 100 more, and from where to where that may lie. beyond: share of those that took longer than few did before

";

/// Carries out both, and shows what decided each.
pub(super) async fn run(channel: &Channel) -> Result<(), Failure> {
    print(ABOUT);
    print("canary 1 of 2, which helps: more requests may run at once\n\n");
    canary(channel, "32").await?;
    print("canary 2 of 2, which harms: somebody lowers the cap by mistake\n\n");
    canary(channel, "2").await
}

/// Sets the cap.
async fn canary(channel: &Channel, max_num_seqs: &str) -> Result<(), Failure> {
    let request = pb::StartWorkflowRequest {
        instance_id: POOL.id.to_owned(),
        workflow_type: "config_change".to_owned(),
        changes: Some(struct_of([("max-num-seqs", Some(max_num_seqs))])),
        canary: Some(pb::WorkflowCanary {
            shares: vec![FIRST],
            warm_up: duration(WARM_UP),
            observe: duration(OBSERVE),
            decision: duration(DECISION),
            drain: duration(DRAIN),
            tolerance_ratio: Some(TOLERANCE),
            ..pb::WorkflowCanary::default()
        }),
        ..pb::StartWorkflowRequest::default()
    };
    let ended = carry_out(channel, request).await?;
    print(&format!("\n{}\n", decided(&ended, colour_on_stdout())));
    Ok(())
}
