//! A change of one setting.

use serde::{Deserialize, Serialize};

/// A change of one setting of an engine, in the engine's own spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct KnobChange {
    /// Name of the knob, as in the engine's knob table.
    pub name: String,
    /// Launch flag, with its dashes.
    pub flag: String,
    /// What is in force, as text; none where it is not set or not known.
    pub from: Option<String>,
    /// What it becomes, as text; none where the flag is taken away, and the engine's default holds.
    pub to: Option<String>,
}

/// Settings that say over how many accelerators an engine goes.
const SPREADS: [&str; 7] = [
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "tp_size",
    "pp_size",
    "dp_size",
    "num_shard",
];

impl KnobChange {
    /// Whether the engine would go over another number of accelerators.
    pub fn spreads(&self) -> bool {
        SPREADS.contains(&self.name.as_str())
    }
}
