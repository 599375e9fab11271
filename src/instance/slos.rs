//! Which SLOs hold for which instance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::spec::InstanceSpec;
use super::violation::FieldViolation;
use crate::analysis::{MAX_SLOS, Slo};

/// SLOs that the operator of the agent set for instances that bring none of their own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SloTable {
    /// For all of them.
    pub common: Vec<Slo>,
    /// For the instance of this id beside those; in place of one that has the same name.
    pub of_instance: BTreeMap<String, Vec<Slo>>,
}

impl SloTable {
    /// Those in force for an instance: its own, else those of the table, else the defaults.
    pub fn of(&self, spec: &InstanceSpec) -> Arc<[Slo]> {
        match spec.slos.is_empty() {
            true => self.of_id(&spec.instance_id),
            false => spec.slos.clone().into(),
        }
    }

    /// Those in force for what is known by this id only.
    pub fn of_id(&self, id: &str) -> Arc<[Slo]> {
        let special = self.of_instance.get(id).map_or(&[][..], Vec::as_slice);
        let replaced = |slo: &&Slo| special.iter().any(|other| other.name == slo.name);
        let common = self.common.iter().filter(|slo| !replaced(slo));
        let set: Vec<Slo> = common.chain(special).cloned().collect();
        match set.is_empty() {
            true => Slo::defaults().into(),
            false => set.into(),
        }
    }
}

/// What is wrong with the SLOs in a field.
pub fn slo_violations(field: &str, slos: &[Slo]) -> Vec<FieldViolation> {
    if slos.len() > MAX_SLOS {
        let description = format!("{} SLOs; at most {MAX_SLOS}", slos.len());
        return vec![FieldViolation::new(field, description)];
    }
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    for (at, slo) in slos.iter().enumerate() {
        let problems = slo.problems().into_iter();
        found.extend(
            problems.map(|(part, text)| FieldViolation::new(format!("{field}[{at}].{part}"), text)),
        );
        if !names.insert(&slo.name) {
            let field = format!("{field}[{at}].name");
            found.push(FieldViolation::new(field, "another SLO has this name"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, target: f64) -> Slo {
        Slo {
            name: name.to_owned(),
            target,
            ..Slo::defaults().remove(0)
        }
    }

    #[test]
    fn the_nearest_word_holds() {
        let none = SloTable::default();
        assert_eq!(*none.of_id("a"), Slo::defaults());
        let table = SloTable {
            common: vec![named("x", 1.0), named("y", 1.0)],
            of_instance: [("a".to_owned(), vec![named("y", 2.0), named("z", 2.0)])].into(),
        };
        assert_eq!(*table.of_id("b"), table.common);
        let of_a = [named("x", 1.0), named("y", 2.0), named("z", 2.0)];
        assert_eq!(*table.of_id("a"), of_a);
    }

    #[test]
    fn every_wrong_one_is_named_by_its_place() {
        let fields = |slos: &[Slo]| -> Vec<String> {
            let found = slo_violations("slos", slos);
            found.into_iter().map(|one| one.field).collect()
        };
        assert_eq!(fields(&Slo::defaults()), Vec::<String>::new());
        let twice = [named("x", 1.0), named("x", -1.0)];
        assert_eq!(fields(&twice), ["slos[1].at_most", "slos[1].name"]);
        let many: Vec<Slo> = (0..=MAX_SLOS)
            .map(|at| named(&at.to_string(), 1.0))
            .collect();
        assert_eq!(fields(&many), ["slos"]);
        assert_eq!(
            fields(many.get(1..).unwrap_or_default()),
            Vec::<String>::new()
        );
    }
}
