//! Messages and enums.

use prost_reflect::{
    Cardinality, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor,
};

use super::comment::{cell, comment, paragraphs};
use super::contract::{Contract, Package, Type};
use super::html::Html;

/// Where the types stand that come with protobuf.
pub(super) const WELL_KNOWN: &str = "well-known";

/// Types that come with protobuf, and what to know of them.
pub(super) const WELL_KNOWN_TYPES: [(&str, &str); 4] = [
    (
        "google.protobuf.Duration",
        "A span of time, in seconds and nanoseconds. In JSON text with the unit: \"1.5s\".",
    ),
    (
        "google.protobuf.FieldMask",
        "Names of fields. In JSON text: \"labels,window\".",
    ),
    (
        "google.protobuf.Struct",
        "Values by name. In JSON text an object: {\"max_num_seqs\": 32}.",
    ),
    (
        "google.protobuf.Timestamp",
        "An instant, in seconds and nanoseconds since 1970 in UTC. In JSON text: \"2026-01-31T12:00:00.5Z\".",
    ),
];

pub(super) fn write_package(html: &mut Html, contract: &Contract, package: &Package) {
    html.tags("<section id=\"").text(package.name());
    html.tags("\">\n<h2>Messages of ").code(package.name());
    html.tags("</h2>\n");
    for one in package.all() {
        html.tags("<section id=\"").text(one.full_name());
        html.tags("\">\n<h3>").text(one.short_name());
        html.tags("</h3>\n");
        match one {
            Type::Message(message) => write_message(html, contract, message),
            Type::Enum(one) => write_enum(html, contract, one),
        }
        html.tags("</section>\n");
    }
    html.tags("</section>\n");
}

pub(super) fn write_well_known(html: &mut Html) {
    html.tags("<section id=\"").text(WELL_KNOWN);
    html.tags("\">\n<h2>Well-known types</h2>\n<dl>");
    for (name, text) in WELL_KNOWN_TYPES {
        html.tags("<dt id=\"").text(name).tags("\">").code(name);
        html.tags("</dt><dd>").text(text).tags("</dd>");
    }
    html.tags("</dl>\n</section>\n");
}

fn write_message(html: &mut Html, contract: &Contract, message: &MessageDescriptor) {
    let file = message.parent_file();
    paragraphs(html, contract, &comment(&file, message.path()));
    let mut fields: Vec<FieldDescriptor> = message.fields().collect();
    if fields.is_empty() {
        html.tags("<p>No fields.</p>\n");
        return;
    }
    // as they are written, so that those of a oneof stand together
    fields.sort_by(|one, other| one.path().cmp(other.path()));
    html.tags("<table><thead><tr><th>Field</th><th>Type</th><th>Presence</th><th>Meaning</th></tr></thead><tbody>\n");
    let mut last: Option<OneofDescriptor> = None;
    for field in &fields {
        let oneof = oneof_of(field);
        if let Some(oneof) = oneof.as_ref().filter(|oneof| last.as_ref() != Some(oneof)) {
            html.tags("<tr id=\"").text(oneof.full_name());
            html.tags("\"><td>").code(oneof.name());
            html.tags("</td><td>oneof</td><td>at most one of the next ");
            html.text(&oneof.fields().len().to_string())
                .tags("</td><td>");
            cell(html, contract, &comment(&file, oneof.path()));
            html.tags("</td></tr>\n");
        }
        last = oneof;
        html.tags("<tr id=\"").text(field.full_name());
        html.tags("\"><td>").code(field.name()).tags(" <small>");
        html.text(&field.number().to_string())
            .tags("</small></td><td>");
        write_type(html, contract, field);
        html.tags("</td><td>")
            .text(&presence(field))
            .tags("</td><td>");
        cell(html, contract, &comment(&file, field.path()));
        html.tags("</td></tr>\n");
    }
    html.tags("</tbody></table>\n");
}

fn oneof_of(field: &FieldDescriptor) -> Option<OneofDescriptor> {
    field
        .containing_oneof()
        .filter(|oneof| !oneof.is_synthetic())
}

fn write_type(html: &mut Html, contract: &Contract, field: &FieldDescriptor) {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            html.tags("map of ");
            write_kind(html, contract, &entry.map_entry_key_field().kind());
            html.tags(" to ");
            write_kind(html, contract, &entry.map_entry_value_field().kind());
        }
        kind => {
            if field.is_list() {
                html.tags("list of ");
            }
            write_kind(html, contract, &kind);
        }
    }
}

fn write_kind(html: &mut Html, contract: &Contract, kind: &Kind) {
    let (name, full_name) = match kind {
        Kind::Message(message) => (message.name(), message.full_name()),
        Kind::Enum(one) => (one.name(), one.full_name()),
        scalar => {
            html.code(&format!("{scalar:?}").to_ascii_lowercase());
            return;
        }
    };
    if contract.shows(full_name) {
        html.link(full_name, name);
    } else {
        html.code(full_name);
    }
}

/// Whether a field can be missing, and what it is then.
fn presence(field: &FieldDescriptor) -> String {
    if field.is_list() || field.is_map() {
        return "may be empty".to_owned();
    }
    if oneof_of(field).is_some() {
        return "of the oneof".to_owned();
    }
    if field.cardinality() == Cardinality::Required {
        return "required".to_owned();
    }
    if field.supports_presence() {
        return "optional".to_owned();
    }
    match field.kind() {
        Kind::String | Kind::Bytes => "default empty".to_owned(),
        Kind::Bool => "default false".to_owned(),
        Kind::Enum(one) => format!("default {}", one.default_value().name()),
        _ => "default 0".to_owned(),
    }
}

fn write_enum(html: &mut Html, contract: &Contract, one: &EnumDescriptor) {
    let file = one.parent_file();
    paragraphs(html, contract, &comment(&file, one.path()));
    html.tags(
        "<table><thead><tr><th>Value</th><th>Number</th><th>Meaning</th></tr></thead><tbody>\n",
    );
    for value in one.values() {
        html.tags("<tr id=\"").text(value.full_name());
        html.tags("\"><td>").code(value.name()).tags("</td><td>");
        html.text(&value.number().to_string()).tags("</td><td>");
        cell(html, contract, &comment(&file, value.path()));
        html.tags("</td></tr>\n");
    }
    html.tags("</tbody></table>\n");
}
