//! What the page is about: the services, what their messages reach, and where each name stands.

use std::collections::{BTreeSet, HashMap, HashSet};

use prost_reflect::{
    DescriptorPool, EnumDescriptor, FileDescriptor, Kind, MessageDescriptor, ServiceDescriptor,
};

use super::comment::comment;
use super::errors;
use super::types::WELL_KNOWN_TYPES;
use crate::agent::Reason;

/// Messages that no RPC answers with, but that errors carry.
pub(super) const ERROR_DETAILS: [&str; 3] = [
    "google.rpc.ErrorInfo",
    "google.rpc.BadRequest",
    "google.rpc.RetryInfo",
];

/// The services and all that belongs to them.
pub(super) struct Contract {
    services: Vec<ServiceDescriptor>,
    packages: Vec<Package>,
    /// Full names of what has a place on the page.
    anchors: HashSet<String>,
    /// Where words lead that stand in comments by themselves.
    words: HashMap<String, String>,
}

/// Types of one protobuf package, in the order of their files.
pub(super) struct Package {
    name: String,
    types: Vec<Type>,
}

/// A message or an enum.
#[derive(Clone)]
pub(super) enum Type {
    Message(MessageDescriptor),
    Enum(EnumDescriptor),
}

impl Contract {
    pub(super) fn of(pool: &DescriptorPool) -> Self {
        let services: Vec<ServiceDescriptor> = pool.services().collect();
        let mut reached = Reached::default();
        for message in services.iter().flat_map(ServiceDescriptor::methods) {
            reached.message(&message.input());
            reached.message(&message.output());
        }
        for name in ERROR_DETAILS {
            if let Some(message) = pool.get_message_by_name(name) {
                reached.message(&message);
            }
        }
        let mut packages: Vec<Package> = Vec::new();
        for file in pool.files() {
            let types = types_of(&file).into_iter();
            let types: Vec<Type> = types
                .filter(|one| reached.0.contains(one.full_name()))
                .collect();
            match packages
                .iter_mut()
                .find(|known| known.name == file.package_name())
            {
                Some(known) => known.types.extend(types),
                None if types.is_empty() => {}
                None => packages.push(Package {
                    name: file.package_name().to_owned(),
                    types,
                }),
            }
        }
        // what is used most by name first
        packages.sort_by_key(|package| !package.name.starts_with("perfagent."));
        let mut contract = Self {
            services,
            packages,
            anchors: WELL_KNOWN_TYPES
                .iter()
                .map(|(name, _)| (*name).to_owned())
                .collect(),
            words: HashMap::new(),
        };
        contract.name_everything();
        contract
    }

    fn name_everything(&mut self) {
        let methods = self.services.iter().flat_map(ServiceDescriptor::methods);
        let types = self.packages.iter().flat_map(|package| &package.types);
        let named: Vec<(String, String)> = methods
            .map(|method| (method.name().to_owned(), method.full_name().to_owned()))
            .chain(types.map(|one| (one.name().to_owned(), one.full_name().to_owned())))
            .collect();
        for (word, name) in named {
            self.anchors.insert(name.clone());
            // `Window` and `Check` are words too
            if word.chars().filter(char::is_ascii_uppercase).count() > 1 {
                self.words.entry(word).or_insert(name);
            }
        }
        for reason in Reason::ALL {
            let word = reason.as_str();
            self.words.insert(word.to_owned(), errors::anchor(word));
        }
    }

    /// Services, ours first.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceDescriptor> {
        let ours = |service: &&ServiceDescriptor| service.full_name().starts_with("perfagent.");
        let others = self.services.iter().filter(move |service| !ours(service));
        self.services.iter().filter(ours).chain(others)
    }

    pub(super) fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// Whether this full name has a place on the page.
    pub(super) fn shows(&self, full_name: &str) -> bool {
        self.anchors.contains(full_name)
    }

    /// The place of a word in a comment, if it is a name.
    pub(super) fn place_of(&self, word: &str) -> Option<&str> {
        self.words.get(word).map(String::as_str)
    }

    /// Services and methods whose comments name this word: anchor and text.
    pub(super) fn naming(&self, word: &str) -> Vec<(String, String)> {
        let names = |text: &str| {
            text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'))
                .any(|one| one == word)
        };
        let mut found = BTreeSet::new();
        for service in &self.services {
            let file = service.parent_file();
            if names(&comment(&file, service.path())) {
                found.insert((service.full_name().to_owned(), service.name().to_owned()));
            }
            for method in service.methods() {
                if names(&comment(&file, method.path())) {
                    found.insert((method.full_name().to_owned(), method.name().to_owned()));
                }
            }
        }
        found.into_iter().collect()
    }
}

impl Package {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn all(&self) -> &[Type] {
        &self.types
    }

    /// Anchor and name of each.
    pub(super) fn types(&self) -> Vec<(String, String)> {
        let types = self.types.iter();
        types
            .map(|one| (one.full_name().to_owned(), one.short_name().to_owned()))
            .collect()
    }
}

impl Type {
    fn name(&self) -> &str {
        match self {
            Self::Message(message) => message.name(),
            Self::Enum(one) => one.name(),
        }
    }

    pub(super) fn full_name(&self) -> &str {
        match self {
            Self::Message(message) => message.full_name(),
            Self::Enum(one) => one.full_name(),
        }
    }

    /// The name within its package: `HealthCheckResponse.ServingStatus`.
    pub(super) fn short_name(&self) -> &str {
        let package = match self {
            Self::Message(message) => message.package_name(),
            Self::Enum(one) => one.package_name(),
        };
        let name = self.full_name();
        name.strip_prefix(package)
            .map_or(name, |rest| rest.trim_start_matches('.'))
    }
}

/// All types of a file, those within others after them.
fn types_of(file: &FileDescriptor) -> Vec<Type> {
    fn within(message: MessageDescriptor, found: &mut Vec<Type>) {
        if message.is_map_entry() {
            return;
        }
        found.push(Type::Message(message.clone()));
        message
            .child_messages()
            .for_each(|child| within(child, found));
        found.extend(message.child_enums().map(Type::Enum));
    }
    let mut found = Vec::new();
    file.messages()
        .for_each(|message| within(message, &mut found));
    found.extend(file.enums().map(Type::Enum));
    // as they are written, which is how they are best read
    found.sort_by_key(|one| place_in(file, one));
    found
}

/// Where a type is declared: line and column.
fn place_in(file: &FileDescriptor, one: &Type) -> Vec<i32> {
    let path = match one {
        Type::Message(message) => message.path(),
        Type::Enum(one) => one.path(),
    };
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let mut locations = info.into_iter().flat_map(|info| &info.location);
    locations
        .find(|location| location.path == path)
        .map(|location| location.span.clone())
        .unwrap_or_default()
}

/// Types that messages lead to.
#[derive(Default)]
struct Reached(HashSet<String>);

impl Reached {
    fn message(&mut self, message: &MessageDescriptor) {
        // those are told in a sentence each
        if message.full_name().starts_with("google.protobuf.") {
            return;
        }
        if !self.0.insert(message.full_name().to_owned()) {
            return;
        }
        for field in message.fields() {
            match field.kind() {
                Kind::Message(message) => self.message(&message),
                Kind::Enum(one) => {
                    self.0.insert(one.full_name().to_owned());
                }
                _ => {}
            }
        }
    }
}
