//! Comments of protos, as HTML.

use prost_reflect::FileDescriptor;

use super::contract::Contract;
use super::html::Html;

/// What comments of RPCs tell under a heading of its own.
const LABELS: [&str; 3] = ["Errors:", "Safe to retry", "Deadline:"];

/// The comment of what stands at this path of a file: above it, or else behind it. Empty where there is none.
pub(super) fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let mut locations = info.into_iter().flat_map(|info| &info.location);
    let Some(location) = locations.find(|location| location.path == path) else {
        return String::new();
    };
    let text = [&location.leading_comments, &location.trailing_comments];
    let text = text.into_iter().flatten().next();
    let lines = text.into_iter().flat_map(|text| text.lines());
    let lines: Vec<&str> = lines
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end())
        .collect();
    lines.join("\n").trim().to_owned()
}

/// Paragraphs; what is indented is shown as it is.
pub(super) fn paragraphs(html: &mut Html, contract: &Contract, text: &str) {
    for paragraph in text.split("\n\n").filter(|text| !text.trim().is_empty()) {
        if paragraph.lines().all(|line| line.starts_with("  ")) {
            html.tags("<pre>").text(paragraph).tags("</pre>\n");
        } else {
            html.tags("<p>");
            words(html, contract, paragraph);
            html.tags("</p>\n");
        }
    }
}

/// What stands in a cell of a table: one paragraph, or some.
pub(super) fn cell(html: &mut Html, contract: &Contract, text: &str) {
    match text.contains("\n\n") {
        true => paragraphs(html, contract, text),
        false => words(html, contract, text),
    }
}

/// Running text: `code`, and links from names to where they stand.
fn words(html: &mut Html, contract: &Contract, text: &str) {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(label) = LABELS.iter().find(|label| rest.starts_with(**label)) {
            html.tags("<strong>").text(label).tags("</strong>");
            rest = rest.strip_prefix(label).unwrap_or_default();
            continue;
        }
        let quoted = rest
            .strip_prefix('`')
            .and_then(|inside| inside.split_once('`'));
        if let Some((code, after)) = quoted {
            html.code(code);
            rest = after;
            continue;
        }
        let (token, after) = match rest.find(|char| !is_of_word(char)) {
            Some(0) => rest.split_at(first.len_utf8()),
            Some(end) => rest.split_at(end),
            None => (rest, ""),
        };
        match contract.place_of(token) {
            Some(anchor) => html.link(anchor, token),
            None => html.text(token),
        };
        rest = after;
    }
}

fn is_of_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}
