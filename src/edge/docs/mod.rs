//! The API reference: one page of HTML, made from what reflection serves and so never older than it.
//!
//! It needs nothing from elsewhere and has no script. It tells no more than the protos and the table of roles do, so
//! that everybody may read it; not even the version of the agent.

mod comment;
mod contract;
mod errors;
mod html;
mod service;
mod types;

use contract::Contract;
use html::Html;
use prost_reflect::DescriptorPool;

/// The one style sheet, whose digest the page's Content-Security-Policy names.
pub(super) const STYLE: &str = include_str!("style.css");

/// The page.
pub(super) fn page(pool: &DescriptorPool) -> String {
    let contract = Contract::of(pool);
    let mut html = Html::default();
    html.tags("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")
        .tags("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")
        .tags("<title>perfagent: API reference</title>\n<style>")
        .tags(STYLE)
        .tags("</style></head>\n<body>");
    outline(&mut html, &contract);
    html.tags("<main>\n");
    introduction(&mut html);
    for service in contract.services() {
        service::write(&mut html, &contract, service);
    }
    errors::write(&mut html, &contract);
    for package in contract.packages() {
        types::write_package(&mut html, &contract, package);
    }
    types::write_well_known(&mut html);
    html.tags("</main></body></html>\n");
    html.into_text()
}

fn outline(html: &mut Html, contract: &Contract) {
    html.tags("<nav aria-label=\"Contents\"><p><a href=\"#top\">perfagent API</a></p><ul>");
    for service in contract.services() {
        let methods = service.methods().map(|method| {
            let anchor = method.full_name().to_owned();
            (anchor, method.name().to_owned())
        });
        entry(html, service.full_name(), service.name(), methods.collect());
    }
    entry(html, errors::ANCHOR, "Errors", Vec::new());
    for package in contract.packages() {
        entry(html, package.name(), package.name(), package.types());
    }
    entry(html, types::WELL_KNOWN, "Well-known types", Vec::new());
    html.tags("</ul></nav>\n");
}

/// An entry of the table of contents, and those below it with anchor and text.
fn entry(html: &mut Html, anchor: &str, text: &str, below: Vec<(String, String)>) {
    html.tags("<li>").link(anchor, text);
    if !below.is_empty() {
        html.tags("<ul>");
        for (anchor, text) in &below {
            html.tags("<li>").link(anchor, text).tags("</li>");
        }
        html.tags("</ul>");
    }
    html.tags("</li>");
}

fn introduction(html: &mut Html) {
    html.tags(
        "<h1 id=\"top\">perfagent API</h1>\n\
         <p>perfagent measures LLM inference engines (vLLM, SGLang, TGI) from their own metrics and serves what it finds \
         over gRPC. Package <code>perfagent.v1</code> only ever adds: what works today goes on working.</p>\n\
         <pre>grpcurl -plaintext 127.0.0.1:8002 list\n\
         grpcurl -plaintext -d '{\"instance_id\": \"vllm-1\"}' 127.0.0.1:8002 perfagent.v1.MetricsService/CollectMetrics\n\
         perfagent descriptor --output perfagent.binpb    # for tools that do not use reflection</pre>\n\
         <ul>\n\
         <li><strong>Who may call</strong> counts where authentication is on; elsewhere everybody may call everything. \
         Send <code>authorization: Bearer TOKEN</code>.</li>\n\
         <li><strong>JSON over HTTP</strong> is spoken by a proxy that transcodes, such as Envoy, and not by the agent \
         itself, which beside gRPC answers <code>GET</code> on <code>/metrics</code>, <code>/healthz</code>, \
         <code>/api/v1/health</code> and <code>/docs</code>.</li>\n\
         <li><strong>Presence</strong>: a field that is <em>optional</em> can be told from one that is 0, empty or false. \
         In an answer an optional value that is not there was not measured, and never means 0. A field with a \
         <em>default</em> has that value where nothing was sent.</li>\n\
         <li><strong>Deadlines</strong> are those that a client should set.</li>\n\
         </ul>\n",
    );
}
