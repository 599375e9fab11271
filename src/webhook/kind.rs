//! What a webhook can be told of.

use serde::{Deserialize, Serialize};

macro_rules! event_types {
    ($($(#[doc = $doc:literal])+ $variant:ident $word:literal,)+) => {
        /// What a webhook can be told of.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
        pub enum EventType {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl EventType {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in payloads, requests and the config file.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

event_types! {
    /// A workflow has another status.
    WorkflowStatusChanged "workflow.status_changed",
    /// A workflow is at another stage.
    WorkflowStageChanged "workflow.stage_changed",
    /// A part of the targets was held against the rest, and there is a verdict on it.
    WorkflowVerdict "workflow.verdict",
    /// A workflow waits for somebody to approve its plan, or that it goes further.
    WorkflowApprovalNeeded "workflow.approval_needed",
    /// Something holds an instance back.
    BottleneckOpened "bottleneck.opened",
    /// It does so no more.
    BottleneckResolved "bottleneck.resolved",
}

impl EventType {
    /// What a webhook is told of that does not say.
    pub const DEFAULT: Self = Self::WorkflowStatusChanged;

    /// The type of a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.as_str() == word)
    }

    /// Whether it is of what holds instances back.
    pub fn is_of_bottlenecks(self) -> bool {
        matches!(self, Self::BottleneckOpened | Self::BottleneckResolved)
    }
}
