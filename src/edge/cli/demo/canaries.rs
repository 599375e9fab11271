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
    launch_args: &[],
};

/// A verdict takes 20 intervals: shorter ones than elsewhere, so that nobody waits.
pub(super) const INTERVAL: Duration = Duration::from_millis(500);
pub(super) const WINDOW: Duration = Duration::from_secs(4);

const FIRST: f64 = 0.33;
/// The queue of a replica that was restarted is as long as before by then.
const WARM_UP: Duration = Duration::from_secs(5);
/// As long again on a machine that is too busy to tell.
const OBSERVE: Duration = Duration::from_secs(20);
const DRAIN: Duration = Duration::from_secs(1);
/// Nobody is asked where it does not tell.
const DECISION: Duration = Duration::from_secs(1);
/// More requests at once make gaps between tokens a few percent longer.
const TOLERANCE: f64 = 0.2;

const ABOUT: &str = "canaries: a change goes to one of the three replicas of demo-pool first, and is held against the two others at the same time.
What is worse there by more than 20 % is harm, and is undone; else the change goes to all three

  WITH is the replica that has the change, WITHOUT the two others. DIFFERENCE is how many times as much, or how many points of
  100 more, with the change, and between what that lies. beyond: the share that took longer than a bound from before the change

";

/// Carries out both, and shows what decided each.
pub(super) async fn run(channel: &Channel) -> Result<(), Failure> {
    print(ABOUT);
    print("canary 1 of 2: a change that helps. More requests may run at once\n\n");
    canary(channel, "32").await?;
    print("canary 2 of 2: a change that harms. Somebody lowers the cap by mistake\n\n");
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
