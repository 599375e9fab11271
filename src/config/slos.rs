//! `[[slos]]` → which SLOs hold for which instance.

use std::collections::BTreeSet;

use super::{Config, ConfigError};
use crate::analysis::Slo;
use crate::instance::{SloTable, slo_violations, violations_text};
use crate::units::is_id;

impl Config {
    /// What users were promised, of instances that bring no SLOs of their own.
    ///
    /// # Errors
    /// An SLO that cannot be, two of the same name, or more than an instance may have.
    pub fn slos(&self) -> Result<SloTable, ConfigError> {
        let mut table = SloTable::default();
        for (at, entry) in self.slos.iter().enumerate() {
            let slo = entry.slo();
            let slo = slo.map_err(|error| ConfigError::Slo(format!("slos[{at}]: {error}")))?;
            match &entry.instance_id {
                None => table.common.push(slo),
                Some(id) if !is_id(id) => {
                    let message = format!("slos[{at}].instance_id: must be the id of an instance");
                    return Err(ConfigError::Slo(message));
                }
                Some(id) => table.of_instance.entry(id.clone()).or_default().push(slo),
            }
        }
        let checked = |of: &str, slos: &[Slo]| match slo_violations("slos", slos) {
            wrong if wrong.is_empty() => Ok(()),
            wrong => {
                let message = format!("slos of {of}: {}", violations_text(&wrong));
                Err(ConfigError::Slo(message))
            }
        };
        checked("all instances", &table.common)?;
        let ids: BTreeSet<&String> = table.of_instance.keys().collect();
        for id in ids {
            // by themselves first: one that is given twice is not seen beside those that it replaces
            checked(id, table.of_instance.get(id).map_or(&[], Vec::as_slice))?;
            checked(id, &table.of_id(id))?;
        }
        Ok(table)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn slos(text: &str) -> Result<SloTable, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.slos().map_err(|error| error.to_string())
    }

    fn row(lines: &str) -> String {
        let quantity = "quantity = \"time_to_first_token_seconds\"\naggregation = \"p95\"";
        format!("[[slos]]\nname = \"ttft\"\n{quantity}\n{lines}\n")
    }

    #[test]
    fn rows_are_for_all_or_for_one() {
        let text = row("at_most = 2") + &row("at_most = 1.5\ninstance_id = \"a\"");
        let table = slos(&text).unwrap();
        let target =
            |id: &str| -> Vec<f64> { table.of_id(id).iter().map(|slo| slo.target).collect() };
        assert_eq!(target("a"), [1.5]);
        assert_eq!(target("b"), [2.0]);
        assert_eq!(*slos("").unwrap().of_id("a"), Slo::defaults());
    }

    #[test]
    fn wrong_rows_are_named() {
        for (text, why) in [
            (row(""), "slos[0]: SLO `ttft`: give at_most or at_least"),
            (
                row("at_most = -1"),
                "slos of all instances: slos[0].at_most: must be a number above 0",
            ),
            (row("at_most = nan"), "must be a number above 0"),
            (
                row("at_most = 1") + &row("at_most = 2"),
                "another SLO has this name",
            ),
            (
                row("at_most = 1\ninstance_id = \"A\""),
                "slos[0].instance_id",
            ),
            (row("at_most = 1\nwindow = 5"), "unknown field `window`"),
        ] {
            let message = slos(&text).unwrap_err();
            assert!(message.contains(why), "{message}");
        }
        let many: String = (0..9)
            .map(|at| row("at_most = 1").replace("\"ttft\"", &format!("\"t{at}\"")))
            .collect();
        assert!(slos(&many).unwrap_err().contains("9 SLOs; at most 8"));
    }
}
