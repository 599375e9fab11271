//! A service and its RPCs.

use prost_reflect::{
    DynamicMessage, MessageDescriptor, MethodDescriptor, ServiceDescriptor, Value,
};

use super::comment::{comment, paragraphs};
use super::contract::Contract;
use super::html::Html;
use crate::auth::Role;
use crate::edge::grpc::{Who, rule_of};

pub(super) fn write(html: &mut Html, contract: &Contract, service: &ServiceDescriptor) {
    html.tags("<section id=\"").text(service.full_name());
    html.tags("\">\n<h2>").text(service.name());
    html.tags("</h2>\n<p>").code(service.full_name());
    html.tags("</p>\n");
    let text = comment(&service.parent_file(), service.path());
    paragraphs(html, contract, &text);
    for method in service.methods() {
        write_method(html, contract, &method);
    }
    html.tags("</section>\n");
}

fn write_method(html: &mut Html, contract: &Contract, method: &MethodDescriptor) {
    html.tags("<section id=\"").text(method.full_name());
    html.tags("\">\n<h3>").text(method.name());
    html.tags("</h3>\n<dl>");
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    html.tags("<dt>Path</dt><dd>").code(&path).tags("</dd>");
    html.tags("<dt>Request</dt><dd>");
    message(
        html,
        contract,
        method.is_client_streaming(),
        &method.input(),
    );
    html.tags("</dd><dt>Answer</dt><dd>");
    message(
        html,
        contract,
        method.is_server_streaming(),
        &method.output(),
    );
    html.tags("</dd><dt>Who may call</dt><dd>");
    html.text(&who_may(&path)).tags("</dd>");
    for HttpPath { verb, path, body } in http_paths(method) {
        html.tags("<dt>JSON over HTTP</dt><dd>");
        html.code(&format!("{verb} {path}"));
        match body.as_str() {
            "" if is_all_in(&path, &method.input()) => html.tags(""),
            "" => html.tags(", other fields as query parameters"),
            "*" => html.tags(", the request as body"),
            field => html.tags(", the field ").code(field).tags(" as body"),
        };
        html.tags("</dd>");
    }
    html.tags("</dl>\n");
    let text = comment(&method.parent_service().parent_file(), method.path());
    paragraphs(html, contract, &text);
    html.tags("</section>\n");
}

fn message(html: &mut Html, contract: &Contract, streams: bool, message: &MessageDescriptor) {
    if streams {
        html.tags("stream of ");
    }
    if contract.shows(message.full_name()) {
        html.link(message.full_name(), message.name());
    } else {
        html.code(message.full_name());
    }
}

fn who_may(path: &str) -> String {
    match rule_of(path).map(|rule| (rule.who, rule.mutates)) {
        Some((Who::Public, _)) => "everybody, without a credential too".to_owned(),
        Some((Who::Roles(roles), false)) => Role::names(roles),
        Some((Who::Roles(roles), true)) => {
            format!("{}; it changes what the agent keeps", Role::names(roles))
        }
        None => "nobody".to_owned(),
    }
}

/// A way to call an RPC through a proxy that transcodes.
struct HttpPath {
    verb: String,
    path: String,
    /// Field that the body holds, `*` for the request, empty for no body.
    body: String,
}

/// Whether a path has each field of the request.
fn is_all_in(path: &str, request: &MessageDescriptor) -> bool {
    let mut fields = request.fields();
    fields.all(|field| path.contains(&format!("{{{}}}", field.name())))
}

/// What `google.api.http` says.
fn http_paths(method: &MethodDescriptor) -> Vec<HttpPath> {
    let pool = method.parent_pool();
    let Some(extension) = pool.get_extension_by_name("google.api.http") else {
        return Vec::new();
    };
    let options = method.options();
    let said = options.extensions().find(|(known, _)| *known == extension);
    let Some(rule) = said.and_then(|(_, value)| value.as_message()) else {
        return Vec::new();
    };
    let more = rule.get_field_by_name("additional_bindings");
    let more = more.iter().filter_map(|value| value.as_list()).flatten();
    std::iter::once(rule)
        .chain(more.filter_map(Value::as_message))
        .flat_map(bindings)
        .collect()
}

/// The verbs of one rule; there is one.
fn bindings(rule: &DynamicMessage) -> Vec<HttpPath> {
    const VERBS: [&str; 5] = ["get", "put", "post", "delete", "patch"];
    let field = |name: &str| {
        let is_set = rule.has_field_by_name(name);
        let value = rule.get_field_by_name(name).filter(|_| is_set)?;
        value.as_str().map(str::to_owned)
    };
    let of_verb = |verb: &&str| {
        Some(HttpPath {
            verb: verb.to_ascii_uppercase(),
            path: field(verb)?,
            body: field("body").unwrap_or_default(),
        })
    };
    VERBS.iter().filter_map(of_verb).collect()
}
