//! `[[actuators]]` → what reads and writes the settings of instances.

use toml::{Table, Value};

use super::{Config, ConfigError};
use crate::actuator::{ACTUATOR_KEYS, Actuators};

/// Directory in the state directory with what is known of checks of actuators.
pub const CHECKED_ACTUATORS: &str = "actuators";

impl Config {
    /// `none`, and the actuators of the file. Programs that passed their check are known by the state directory, so that
    /// it must be set by then.
    ///
    /// # Errors
    /// One that cannot be used, by its name.
    pub fn actuators(&self) -> Result<Actuators, ConfigError> {
        let records = self.store.state_dir.as_ref();
        let records = records.map(|directory| directory.join(CHECKED_ACTUATORS));
        let (policy, limits) = (self.url_policy()?, self.fetch_limits());
        let asked = (&policy, limits);
        Ok(Actuators::new(&self.actuators, records.as_deref(), asked)?)
    }
}

/// The first key of an entry that there is not, and those that there are.
pub(super) fn unknown_key(entries: &Value) -> Option<(String, Vec<String>)> {
    let entries = entries.as_array()?.iter().filter_map(Value::as_table);
    let mut keys = entries.flat_map(Table::keys);
    let key = keys.find(|key| !ACTUATOR_KEYS.contains(&key.as_str()))?;
    let known = ACTUATOR_KEYS.map(|known| format!("actuators.{known}"));
    Some((format!("actuators.{key}"), known.to_vec()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let config = Config::load(Some(file.path()), [])?;
        config.check().map(|()| config)
    }

    fn message(text: &str) -> String {
        load(text).unwrap_err().to_string()
    }

    const HOST: &str = "[[actuators]]\nname = \"host\"\ntype = \"command\"\ncommand = [\"/opt/settings\", \"-v\"]\nenv = [\"PATH\"]\ntimeout = \"90s\"\n";

    #[test]
    fn actuators_are_known_by_name() {
        let config = load(HOST).unwrap();
        let actuators = config.actuators().unwrap();
        let names: Vec<_> = actuators.names().collect();
        assert_eq!(names, [("host", "command"), ("none", "none")]);
        let host = actuators.get("host").unwrap();
        assert_eq!(host.timeout().as_secs(), 90);
        assert!(host.drives() && !actuators.get("none").unwrap().drives());
        assert_eq!(load("").unwrap().actuators().unwrap().names().count(), 1);
    }

    #[test]
    fn wrong_ones_are_named() {
        let typo = message(&HOST.replace("timeout", "timeouts"));
        assert!(
            typo.ends_with(
                "unknown key `actuators.timeouts`; the nearest known one is `actuators.timeout`"
            ),
            "{typo}"
        );
        let twice = message(&(HOST.to_owned() + HOST));
        assert_eq!(twice, "actuators: `host`: there are two of this name");
        let kind = message(&HOST.replace("\"command\"", "\"comand\""));
        assert!(
            kind.contains("line 3") && kind.contains("simulator"),
            "{kind}"
        );
        assert!(message("[[actuator]]\n").ends_with("is `actuators`"));
    }

    #[test]
    fn instances_name_actuators_that_there_are() {
        let instance = "[[instances]]\ninstance_id = \"a\"\nmetrics_url = \"http://127.0.0.1:1/metrics\"\nactuator = \"host\"\n";
        load(&(instance.to_owned() + HOST)).unwrap();
        load(&instance.replace("host", "none")).unwrap();
        let other = message(&(instance.replace("host", "hots") + HOST));
        assert!(
            other.starts_with("instances: a: actuator: no actuator `hots`; known are host, none; the nearest is `host`"),
            "{other}"
        );
    }
}
