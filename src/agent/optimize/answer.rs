//! What the verbs of optimization are about, and what they answer.

use std::collections::BTreeMap;

use crate::agent::{Target, WindowRequest};
use crate::analysis::Finding;
use crate::measure::{Measurement, Note, Window};
use crate::optimization::{Effect, InForce, KnobChange, Recommendation};
use crate::scrape::ScrapeError;

/// What advice is about.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A registered instance, which is a target without URLs, or an inline target.
    Target(Target, WindowRequest),
    /// The engine that this was measured of.
    Measurement(Box<Measurement>),
    /// An engine of which the caller knows what holds it back.
    Findings {
        /// Id that the caller gives it, or of a registered instance; may be empty.
        instance_id: String,
        /// The engine.
        engine: String,
        /// What holds it back, root cause first.
        findings: Vec<Finding>,
    },
}

/// What an answer is about, before it is known what it says.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    pub(super) instance_id: String,
    pub(super) engine: String,
    pub(super) engine_version: Option<String>,
    pub(super) simulated: bool,
    pub(super) window: Option<Window>,
    pub(super) stale: bool,
    pub(super) failure: Option<ScrapeError>,
    pub(super) notes: Vec<Note>,
}

macro_rules! answers {
    ($($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $of:literal])+ $field:ident: $type:ty,)* })+) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone)]
        pub struct $name {
            /// Id of the instance.
            pub instance_id: String,
            /// Engine, as in `instance_type`.
            pub engine: String,
            /// Version as the engine writes it.
            pub engine_version: Option<String>,
            /// The endpoint says that it is simulated.
            pub simulated: bool,
            /// When it was measured; none where nothing was.
            pub window: Option<Window>,
            /// The window is older than two intervals, or from before a scrape that failed.
            pub stale: bool,
            /// Why the last scrape of a replica failed, if it did.
            pub failure: Option<ScrapeError>,
            /// What a reader must know of the measurement.
            pub notes: Vec<Note>,
            /// The settings in force.
            pub in_force: InForce,
            $($(#[doc = $of])+ pub $field: $type,)*
        }

        impl $name {
            pub(super) fn new(about: About, in_force: InForce $(, $field: $type)*) -> Self {
                let About {
                    instance_id,
                    engine,
                    engine_version,
                    simulated,
                    window,
                    stale,
                    failure,
                    notes,
                } = about;
                Self {
                    instance_id,
                    engine,
                    engine_version,
                    simulated,
                    window,
                    stale,
                    failure,
                    notes,
                    in_force,
                    $($field,)*
                }
            }
        }
    )+};
}

answers! {
    /// What is set.
    ConfigAnswer {}

    /// What to change.
    Advised {
        /// What to change.
        recommendation: Recommendation,
        /// Ids of the predictions that are kept, by the id of the optimization. Of a registered instance only.
        predictions: BTreeMap<String, String>,
    }

    /// What changes would do.
    Predicted {
        /// The changes, as they were understood.
        changes: Vec<KnobChange>,
        /// What they would do.
        effect: Effect,
        /// What a reader must know beside, a sentence each.
        remarks: Vec<String>,
        /// Id of the prediction that is kept. Of a registered instance only.
        prediction_id: Option<String>,
    }
}
