//! `perfagent workflow start`

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use uuid::Uuid;

use super::canary_args::CanaryArgs;
use super::page::{Told, render};
use super::reach::{Reached, WRITE_DEADLINE, json_of, request};
use super::watch::{to_its_end, until_planned};
use super::words::outcome_of;
use crate::edge::cli::collect::Output;
use crate::edge::cli::connect::ConnectArgs;
use crate::edge::cli::predict::assignment;
use crate::edge::cli::terminal::{clean, colour_on_stdout, note, print};
use crate::edge::cli::{Failure, Outcome};
use crate::edge::grpc::convert::duration;
use crate::edge::grpc::{convert_struct, pb};

/// Flags of `perfagent workflow start`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::edge::cli) struct StartArgs {
    /// Instance that the agent watches; or the id of one that is given with --url, and registered with the workflow
    #[arg(value_name = "INSTANCE")]
    instance: String,
    /// What is to be done [default: optimization; config-change with --set or --unset, restore with --snapshot]
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<Kind>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    canary: CanaryArgs,
    #[command(flatten)]
    gate: GateArgs,
    #[command(flatten)]
    timeouts: TimeoutArgs,
    #[command(flatten)]
    given: GivenArgs,
    /// Why, for those who read it later
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    note: String,
    /// How long to wait for the plan; 0s prints the id at once
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration, value_name = "TIME")]
    wait: Duration,
    /// Look on to its end, as `perfagent workflow watch` does
    #[arg(long, conflicts_with_all = ["validate_only", "wait"])]
    watch: bool,
    /// Start nothing: show the plan as it would be
    #[arg(long)]
    validate_only: bool,
    /// What to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    // last: its heading would hold for what comes after it
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// What is recommended
    Optimization,
    /// The settings that --set and --unset name
    ConfigChange,
    /// The settings that a snapshot holds
    Restore,
    /// No change: what holds the instance back, and what would help
    Analysis,
}

/// What is to change.
#[derive(Debug, Args)]
#[command(next_help_heading = "The change")]
struct ChangeArgs {
    /// Setting that changes, by name or launch flag; may be repeated
    #[arg(long, value_parser = assignment, value_name = "NAME=VALUE", allow_hyphen_values = true)]
    set: Vec<(String, String)>,
    /// Launch flag to take away, so that the engine's default holds; may be repeated
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    unset: Vec<String>,
    /// Settings to restore: a snapshot of `perfagent workflow snapshots`
    #[arg(long, value_name = "SNAPSHOT", conflicts_with_all = ["set", "unset"])]
    snapshot: Option<String>,
    /// One of those that are recommended, instead of the first
    #[arg(long, value_name = "OPTIMIZATION")]
    optimization: Option<String>,
    /// No change that takes a restart of the engine
    #[arg(long)]
    no_restart: bool,
    /// No change that may change answers
    #[arg(long)]
    no_answer_change: bool,
}

/// What approval takes; what is not given is as the agent's config file says.
#[derive(Debug, Args)]
#[command(next_help_heading = "Approval")]
struct GateArgs {
    /// Go on without an approval, where the agent's config file allows it
    #[arg(long, conflicts_with_all = ["approvals", "approvers", "separate_requester"])]
    auto_approve: bool,
    /// How many different principals have to approve
    #[arg(long, value_name = "NUMBER")]
    approvals: Option<u32>,
    /// Principal who may approve; may be repeated [default: everybody whose role allows it]
    #[arg(long = "approver", value_name = "PRINCIPAL")]
    approvers: Vec<String>,
    /// Somebody else than who starts it has to approve
    #[arg(long)]
    separate_requester: bool,
    /// How long to wait for approval, at most 30d
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    approval_timeout: Option<Duration>,
    /// What then: reject it, or hold it until it is resumed
    #[arg(long, value_enum, value_name = "WHAT")]
    on_timeout: Option<OnTimeout>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnTimeout {
    /// It is rejected
    Reject,
    /// It is paused, and waits as long again once it is resumed
    Hold,
}

/// How long parts of it may take, each 1s to 1d.
#[derive(Debug, Args)]
#[command(next_help_heading = "Deadlines")]
struct TimeoutArgs {
    /// Analysis and recommendation together [default: 10m]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    plan_timeout: Option<Duration>,
    /// Until a target is ready with new settings [default: 30m]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    ready_timeout: Option<Duration>,
    /// Measuring what came of it [default: 15m]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    observe_timeout: Option<Duration>,
    /// Restoring all targets [default: 1h]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    rollback_timeout: Option<Duration>,
}

/// An instance that the agent does not know yet. It has no actuator: the plan is made, and not applied.
#[derive(Debug, Args)]
#[command(next_help_heading = "An instance that is not registered")]
struct GivenArgs {
    /// Metrics URL of the engine; give it once for each replica
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<String>,
    /// vllm, sglang, tgi, an engine of the agent's config file, or auto
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "ENGINE"
    )]
    engine: String,
}

const EXAMPLES: &str = "Examples:
  perfagent workflow start vllm-1
  perfagent workflow start vllm-1 --set max-num-seqs=64 --note 'queue since Monday' --watch
  perfagent workflow start vllm-1 --type analysis
  perfagent workflow start vllm-1 --snapshot 0197c1a2-6a51-7d58-8f64-2a0c1f7f2d10
  perfagent workflow start vllm-1 --approvals 2 --approval-timeout 4h
  perfagent workflow start pool-1 --canary 25% --canary 100% --observe 30m --gate-before-rollout
  perfagent workflow start vllm-1 --validate-only -o json | jq .workflow.plan.changes
  perfagent workflow start new-1 --url http://127.0.0.1:8000/metrics

It prints the id, the plan with what each change is predicted to do, and the command that approves it. Nothing is changed
before somebody approves. While it waits for the plan, Ctrl-C ends the waiting and not the workflow.

Exit codes: 0 started, and not ended otherwise than COMPLETED; 1 failed; 2 wrong usage or configuration; and where it has
ended meanwhile, or with --watch, those of `perfagent workflow watch`.";

/// The longest that an agent holds an answer back.
const DRY_RUN_WAIT: Duration = Duration::from_secs(60);

pub(super) async fn run(args: StartArgs) -> Result<Outcome, Failure> {
    let reached = Reached::by(&args.connect).await?;
    let deadline = match args.validate_only {
        true => DRY_RUN_WAIT + WRITE_DEADLINE,
        false => WRITE_DEADLINE,
    };
    let call = request(args.request()?, deadline);
    let answer = reached.client().start_workflow(call).await;
    let answer = answer
        .map_err(|status| reached.failed(&status))?
        .into_inner();
    let Some(workflow) = answer.workflow else {
        let text = "the agent answered without a workflow";
        return Err(Failure::new(Outcome::Failed, text, None));
    };
    if args.watch {
        return to_its_end(&reached, &workflow.workflow_id, args.output).await;
    }
    if !args.validate_only && args.output == Output::Table {
        print(&format!("started {}\n", clean(&workflow.workflow_id)));
    }
    let workflow = match args.validate_only {
        true => workflow,
        false => until_planned(&reached, workflow, args.wait).await?,
    };
    let outcome = outcome_of(&workflow).unwrap_or(Outcome::Done);
    match args.output {
        Output::Json => {
            let answer = pb::StartWorkflowResponse {
                workflow: Some(workflow),
            };
            print(&json_of("StartWorkflowResponse", &answer)?);
        }
        Output::Table => {
            let told = Told {
                of: &workflow,
                now: SystemTime::now(),
                server: &reached.server,
            };
            print(&format!("\n{}", render(&told, colour_on_stdout())));
            if args.validate_only {
                note("note", "nothing was started");
            }
        }
    }
    Ok(outcome)
}

impl StartArgs {
    fn kind(&self) -> Kind {
        let change = &self.change;
        self.kind.unwrap_or(match () {
            () if change.snapshot.is_some() => Kind::Restore,
            () if !change.set.is_empty() || !change.unset.is_empty() => Kind::ConfigChange,
            () => Kind::Optimization,
        })
    }

    fn request(&self) -> Result<pb::StartWorkflowRequest, Failure> {
        let change = &self.change;
        let set = change.set.iter();
        let set = set.map(|(name, value)| (name.as_str(), Some(value.as_str())));
        let unset = change.unset.iter().map(|name| (name.as_str(), None));
        let changes: BTreeMap<&str, Option<&str>> = set.chain(unset).collect();
        let kind = self.kind();
        if !changes.is_empty() && kind != Kind::ConfigChange {
            let hint = "leave --type out, or make it config-change";
            let text = "--set and --unset are for a config-change";
            return Err(Failure::new(Outcome::Usage, text, Some(hint)));
        }
        Ok(pb::StartWorkflowRequest {
            request_id: Uuid::new_v4().to_string(),
            instance_id: self.instance.clone(),
            instance_type: self.given.engine.clone(),
            metrics_url: String::new(),
            metrics_urls: self.given.urls.clone(),
            workflow_type: match kind {
                Kind::Optimization => "optimization",
                Kind::ConfigChange => "config_change",
                Kind::Restore => "restore",
                Kind::Analysis => "analysis",
            }
            .to_owned(),
            changes: (!changes.is_empty()).then(|| convert_struct::struct_of(changes)),
            snapshot_id: change.snapshot.clone().unwrap_or_default(),
            optimization_id: change.optimization.clone().unwrap_or_default(),
            no_restart: change.no_restart,
            no_answer_change: change.no_answer_change,
            auto_approve: self.gate.auto_approve,
            gate: self.gate.on_the_wire(),
            strategy: self.canary.strategy().into(),
            canary: self.canary.on_the_wire()?,
            plan_timeout: self.timeouts.plan_timeout.and_then(duration),
            ready_timeout: self.timeouts.ready_timeout.and_then(duration),
            observe_timeout: self.timeouts.observe_timeout.and_then(duration),
            rollback_timeout: self.timeouts.rollback_timeout.and_then(duration),
            note: self.note.clone(),
            wait: self
                .validate_only
                .then_some(DRY_RUN_WAIT)
                .and_then(duration),
            validate_only: self.validate_only,
        })
    }
}

impl GateArgs {
    /// None where it is as the agent's config file says.
    fn on_the_wire(&self) -> Option<pb::WorkflowGate> {
        let gate = pb::WorkflowGate {
            approvals: self.approvals.unwrap_or_default(),
            approvers: self.approvers.clone(),
            separate_requester: self.separate_requester,
            timeout: self.approval_timeout.and_then(duration),
            on_timeout: match self.on_timeout {
                None => pb::WorkflowOnTimeout::Unspecified,
                Some(OnTimeout::Reject) => pb::WorkflowOnTimeout::Reject,
                Some(OnTimeout::Hold) => pb::WorkflowOnTimeout::Hold,
            }
            .into(),
            kind: pb::WorkflowGateKind::Unspecified.into(),
        };
        Some(gate).filter(|gate| *gate != pb::WorkflowGate::default())
    }
}
