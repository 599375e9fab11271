//! Who may call what: the one table. With authentication on, what has no row here is refused.

use crate::auth::Role;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::edge) enum Who {
    /// Everybody, with a credential or without.
    Public,
    /// Callers with one of these roles.
    Roles(&'static [Role]),
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(in crate::edge) struct Rule {
    /// Path of the method, or of a plain HTTP resource.
    pub(in crate::edge) path: &'static str,
    /// Who may call it.
    pub(in crate::edge) who: Who,
    /// Whether it changes what the agent looks after.
    pub(in crate::edge) mutates: bool,
}

/// The row of a path, if it has one.
pub(in crate::edge) fn rule_of(path: &str) -> Option<&'static Rule> {
    TABLE.iter().find(|rule| rule.path == path)
}

const ALL: Who = Who::Roles(Role::ALL);
const OPERATING: Who = Who::Roles(Role::OPERATING);
const APPROVING: Who = Who::Roles(Role::APPROVING);
const ADMIN: Who = Who::Roles(&[Role::Admin]);

/// Who may measure a target that is given by URL is not said here but by `Caller::may_name_targets`: the same methods
/// measure registered instances, which every role may.
#[rustfmt::skip]
const TABLE: &[Rule] = &[
    reads(Who::Public, "/healthz"),
    reads(Who::Public, "/api/v1/health"),
    reads(ALL,         "/metrics"),
    // the contract, which is no secret
    reads(Who::Public, "/docs"),
    // probes carry no credentials
    reads(Who::Public, "/grpc.health.v1.Health/Check"),
    reads(Who::Public, "/grpc.health.v1.Health/List"),
    reads(Who::Public, "/grpc.health.v1.Health/Watch"),
    reads(ALL,         "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    reads(ALL,         "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    reads(ALL,         "/perfagent.v1.AgentService/GetAgentInfo"),
    reads(ALL,         "/perfagent.v1.AgentService/GetCapabilities"),
    reads(ALL,         "/perfagent.v1.AnalysisService/DetectBottlenecks"),
    reads(ALL,         "/perfagent.v1.AnalysisService/EvaluateSlos"),
    reads(ALL,         "/perfagent.v1.AnalysisService/WatchBottlenecks"),
    writes(OPERATING,  "/perfagent.v1.InstanceService/DeleteInstance"),
    reads(ALL,         "/perfagent.v1.InstanceService/GetInstance"),
    reads(ALL,         "/perfagent.v1.InstanceService/ListInstances"),
    writes(OPERATING,  "/perfagent.v1.InstanceService/RegisterInstance"),
    writes(OPERATING,  "/perfagent.v1.InstanceService/UpdateInstance"),
    reads(ALL,         "/perfagent.v1.MetricsService/BatchCollectMetrics"),
    reads(ALL,         "/perfagent.v1.MetricsService/CollectMetrics"),
    reads(ALL,         "/perfagent.v1.MetricsService/CompareMetrics"),
    reads(ALL,         "/perfagent.v1.MetricsService/WatchMetrics"),
    // what is predicted is kept, and nothing that the agent looks after changes
    reads(ALL,         "/perfagent.v1.OptimizationService/GetInstanceConfig"),
    reads(ALL,         "/perfagent.v1.OptimizationService/ListPredictions"),
    reads(ALL,         "/perfagent.v1.OptimizationService/PredictPerformance"),
    reads(ALL,         "/perfagent.v1.OptimizationService/RecommendOptimizations"),
    // a webhook sends what happens to where its creator says
    writes(ADMIN,      "/perfagent.v1.WebhookService/CreateWebhook"),
    writes(ADMIN,      "/perfagent.v1.WebhookService/DeleteWebhook"),
    writes(ADMIN,      "/perfagent.v1.WebhookService/DisableWebhook"),
    writes(ADMIN,      "/perfagent.v1.WebhookService/EnableWebhook"),
    reads(ALL,         "/perfagent.v1.WebhookService/GetWebhook"),
    reads(ALL,         "/perfagent.v1.WebhookService/GetWebhookDelivery"),
    reads(ALL,         "/perfagent.v1.WebhookService/ListWebhookDeliveries"),
    reads(ALL,         "/perfagent.v1.WebhookService/ListWebhooks"),
    writes(OPERATING,  "/perfagent.v1.WebhookService/RedeliverWebhook"),
    writes(ADMIN,      "/perfagent.v1.WebhookService/RotateWebhookSecret"),
    writes(OPERATING,  "/perfagent.v1.WebhookService/TestWebhook"),
    writes(APPROVING,  "/perfagent.v1.WorkflowService/ApproveWorkflow"),
    writes(OPERATING,  "/perfagent.v1.WorkflowService/CancelWorkflow"),
    writes(OPERATING,  "/perfagent.v1.WorkflowService/CreateConfigSnapshot"),
    reads(ALL,         "/perfagent.v1.WorkflowService/GetWorkflow"),
    reads(ALL,         "/perfagent.v1.WorkflowService/ListConfigSnapshots"),
    reads(ALL,         "/perfagent.v1.WorkflowService/ListWorkflowEvents"),
    reads(ALL,         "/perfagent.v1.WorkflowService/ListWorkflows"),
    writes(OPERATING,  "/perfagent.v1.WorkflowService/PauseWorkflow"),
    writes(APPROVING,  "/perfagent.v1.WorkflowService/RejectWorkflow"),
    writes(OPERATING,  "/perfagent.v1.WorkflowService/ResumeWorkflow"),
    writes(OPERATING,  "/perfagent.v1.WorkflowService/RollbackWorkflow"),
    writes(OPERATING,  "/perfagent.v1.WorkflowService/StartWorkflow"),
    reads(ALL,         "/perfagent.v1.WorkflowService/WatchWorkflow"),
    reads(ALL,         "/perfagent.v1.WorkflowService/WatchWorkflows"),
];

const fn reads(who: Who, path: &'static str) -> Rule {
    Rule {
        path,
        who,
        mutates: false,
    }
}

const fn writes(who: Who, path: &'static str) -> Rule {
    Rule {
        path,
        who,
        mutates: true,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::edge::grpc::server::served_paths;
    use prost_reflect::DescriptorPool;
    use std::collections::HashSet;

    fn served() -> HashSet<String> {
        let pool = DescriptorPool::decode(crate::edge::grpc::DESCRIPTORS).unwrap();
        served_paths(&pool)
    }

    #[test]
    fn everything_that_is_served_has_one_row_and_every_row_is_served() {
        let served = served();
        assert!(served.len() >= 11, "{served:?}");
        for path in &served {
            let rows = TABLE.iter().filter(|rule| rule.path == path).count();
            assert_eq!(rows, 1, "{path}");
        }
        for rule in TABLE {
            assert!(served.contains(rule.path), "{} is not served", rule.path);
        }
    }

    #[test]
    fn only_probes_and_the_contract_are_public_and_viewers_change_nothing() {
        for rule in TABLE {
            match rule.who {
                Who::Public => {
                    let probe =
                        rule.path.starts_with("/grpc.health.v1.") || rule.path.contains("/health");
                    let harmless = probe || rule.path == "/docs";
                    assert!(harmless && !rule.mutates, "{}", rule.path);
                }
                Who::Roles(roles) => {
                    assert!(roles.contains(&Role::Admin), "{}", rule.path);
                    assert!(
                        !(rule.mutates && roles.contains(&Role::Viewer)),
                        "{}",
                        rule.path
                    );
                }
            }
        }
        assert!(rule_of("/perfagent.v1.MetricsService/Nothing").is_none());
        assert!(rule_of("/perfagent.v1.MetricsService/CollectMetrics/").is_none());
    }
}
