//! Tests that cross a boundary: recorded engines, the wire, the command line.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing
)]

mod access;
mod accuracy;
mod actuator_host;
mod actuators;
mod board;
mod bounds;
mod breaking;
mod broken_store;
mod canary;
#[path = "../support/trials.rs"]
mod canary_trials;
mod canary_verdicts;
mod captures;
mod cli;
mod cli_compare;
mod cli_diagnose;
mod cli_recommend;
mod cli_store;
mod cli_webhook;
mod cli_workflow;
mod compare;
mod contract;
mod corpus;
mod credentials;
mod demo;
mod descriptor;
mod diagnosing;
#[path = "../support/diagnosis.rs"]
mod diagnosis;
mod docs;
mod errors;
mod fake;
mod flapping;
mod hostile;
mod http;
mod hunted;
mod in_force;
mod instance_refusals;
mod instances;
mod killed;
mod labels;
mod launch_args;
mod levers;
mod operating;
mod optimizing;
mod peers;
mod pki;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/prediction.rs"]
mod prediction;
mod predictions;
mod profiles;
mod prometheus;
mod proxied;
mod receiver;
mod recommended;
#[path = "../support/score.rs"]
mod score;
mod scripted;
mod sent_back;
mod services;
mod sharing;
mod simulator;
mod slos;
mod slowed;
mod tls;
mod trouble;
mod truth;
mod verdicts;
mod watch_validators;
mod watching;
mod webhooks;
mod windows;
mod workflow_crowd;
mod workflow_golden;
mod workflow_refusals;
mod workflow_watches;
mod workflows;
