//! The KV cache that an engine has of its device's memory.

use serde::Deserialize;

use crate::model::{Policy, Settings};

use super::flags::{FlagError, FlagValues};

/// The memory of a device, and what of it no key or value can have.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryPart {
    /// All of it, in GiB; of all devices of a replica.
    pub device_gib: f64,
    /// Weights, and what a step needs, in GiB.
    pub weights_gib: f64,
    /// Keys and values of one token.
    pub kv_bytes_per_token: f64,
}

/// The flag that says which share an engine takes, what it takes without, and the flag that says the tokens themselves.
fn flags(engine: Policy) -> (&'static str, f64, &'static str) {
    match engine {
        Policy::Vllm => ("gpu-memory-utilization", 0.92, "num-gpu-blocks-override"),
        Policy::Sglang => ("mem-fraction-static", 0.88, "max-total-tokens"),
        Policy::Tgi => ("cuda-memory-fraction", 1.0, "max-batch-total-tokens"),
    }
}

/// The share of memory that an engine with these flags takes.
pub(super) fn share(engine: Policy, given: &FlagValues) -> f64 {
    let (flag, default, _) = flags(engine);
    let text = given.get(flag);
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

impl MemoryPart {
    /// Tokens whose keys and values fit beside the weights, if an engine takes this share of it all.
    pub fn tokens(&self, share: f64) -> u64 {
        const GIB: f64 = (1_u64 << 30) as f64;
        let free = (share * self.device_gib - self.weights_gib).max(0.0) * GIB;
        // `as` saturates
        (free / self.kv_bytes_per_token) as u64
    }

    /// What is wrong with it, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        let parts = [
            ("device_gib", self.device_gib),
            ("weights_gib", self.weights_gib),
            ("kv_bytes_per_token", self.kv_bytes_per_token),
        ];
        let (name, value) = parts
            .into_iter()
            .find(|(_, value)| !(value.is_finite() && *value > 0.0))?;
        Some(format!(
            "memory.{name} = {value}: a number above 0 is meant"
        ))
    }
}

/// Gives the settings the cache that their flags leave them of this memory.
///
/// # Errors
/// A share of a memory that nobody describes; more tokens than fit.
pub(super) fn apply(
    memory: Option<&MemoryPart>,
    given: &FlagValues,
    settings: &mut Settings,
) -> Result<(), FlagError> {
    let (of_share, _, of_tokens) = flags(settings.policy);
    let refuse = |name, reason: String| {
        Err(FlagError::Value {
            name,
            value: given.get(name).unwrap_or_default().to_owned(),
            reason,
        })
    };
    let Some(memory) = memory else {
        return match given.has(of_share) {
            true => refuse(
                of_share,
                "a share of a memory that no scenario describes: [memory]".to_owned(),
            ),
            false => Ok(()),
        };
    };
    if given.has(of_tokens) {
        let most = memory.tokens(1.0);
        return match settings.kv_tokens() > most {
            true => refuse(
                of_tokens,
                format!("the device has memory for {most} tokens beside the weights"),
            ),
            false => Ok(()),
        };
    }
    let tokens = memory.tokens(share(settings.policy, given));
    let blocks = tokens / u64::from(settings.block_size.max(1));
    // vLLM keeps one block back
    let blocks = blocks.saturating_sub(u64::from(settings.policy == Policy::Vllm));
    settings.kv_blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::simulator::Scenario;

    fn kv_tokens(text: &str) -> Result<u64, String> {
        let memory = "memory = { device_gib = 80, weights_gib = 20, kv_bytes_per_token = 131072 }";
        let scenario: Scenario = toml::from_str(&format!("{memory}\n{text}")).unwrap();
        let deployment = scenario.deployment().map_err(|error| error.to_string())?;
        let settings = deployment.settings(&deployment.flags).unwrap();
        Ok(settings.kv_tokens())
    }

    #[test]
    fn what_weights_leave_is_cache() {
        // 8,192 tokens a GiB; a block of 16 is kept back
        let tokens = |gib: f64| (gib * 8_192.0) as u64 / 16 * 16 - 16;
        assert_eq!(kv_tokens(""), Ok(tokens(80.0 * 0.92 - 20.0)));
        assert_eq!(
            kv_tokens("settings = { gpu_memory_utilization = 0.5 }"),
            Ok(tokens(20.0))
        );
        assert_eq!(
            kv_tokens("engine = 'sglang'\nsettings = { mem_fraction_static = 0.5 }"),
            Ok(20 * 8_192)
        );
        assert_eq!(kv_tokens("engine = 'tgi'"), Ok(60 * 8_192));
        // tokens themselves are what they are
        assert_eq!(
            kv_tokens("settings = { num_gpu_blocks_override = 1001 }"),
            Ok(16_000)
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (text, what) in [
            (
                "settings = { num_gpu_blocks_override = 40000 }",
                "memory for 491520 tokens",
            ),
            (
                "settings = { gpu_memory_utilization = 0.26 }",
                "one request of max_model_len",
            ),
            (
                "settings = { gpu_memory_utilization = 1.5 }",
                "a share above 0 and up to 1",
            ),
        ] {
            let error = kv_tokens(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
        let alone: Scenario =
            toml::from_str("settings = { gpu_memory_utilization = 0.9 }").unwrap();
        let error = alone.deployment().unwrap_err().to_string();
        assert!(error.contains("[memory]"), "{error}");
        let none: Scenario =
            toml::from_str("memory = { device_gib = 0, weights_gib = 1, kv_bytes_per_token = 1 }")
                .unwrap();
        let error = none.deployment().unwrap_err().to_string();
        assert!(error.contains("memory.device_gib = 0"), "{error}");
    }
}
