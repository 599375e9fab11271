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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use prost_types::source_code_info::Location;
    use prost_types::{
        DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
        ServiceDescriptorProto, SourceCodeInfo,
    };

    /// A service whose one message has this comment.
    fn page_of(comment: &str) -> String {
        let method = MethodDescriptorProto {
            name: Some("Ask".to_owned()),
            input_type: Some(".perfagent.x.AskRequest".to_owned()),
            output_type: Some(".perfagent.x.AskRequest".to_owned()),
            ..MethodDescriptorProto::default()
        };
        let file = FileDescriptorProto {
            name: Some("x.proto".to_owned()),
            package: Some("perfagent.x".to_owned()),
            syntax: Some("proto3".to_owned()),
            message_type: vec![DescriptorProto {
                name: Some("AskRequest".to_owned()),
                ..DescriptorProto::default()
            }],
            service: vec![ServiceDescriptorProto {
                name: Some("AskService".to_owned()),
                method: vec![method],
                ..ServiceDescriptorProto::default()
            }],
            source_code_info: Some(SourceCodeInfo {
                location: vec![Location {
                    path: vec![4, 0],
                    span: vec![0, 0, 1],
                    leading_comments: Some(comment.to_owned()),
                    ..Location::default()
                }],
            }),
            ..FileDescriptorProto::default()
        };
        let set = FileDescriptorSet { file: vec![file] };
        page(&DescriptorPool::from_file_descriptor_set(set).unwrap())
    }

    #[test]
    fn comments_are_text_with_code_and_links() {
        let page = page_of(
            " Of `a<b` and AskRequest, not of Ask; ROLE_NOT_ALLOWED.\n\n     { \"x\": 1 }\n\n Safe to retry.\n",
        );
        for part in [
            "<p>Of <code>a&lt;b</code> and <a href=\"#perfagent.x.AskRequest\">AskRequest</a>, not of Ask; ",
            "<a href=\"#reason.ROLE_NOT_ALLOWED\">ROLE_NOT_ALLOWED</a>.</p>",
            "<pre>    { &quot;x&quot;: 1 }</pre>",
            "<p><strong>Safe to retry</strong>.</p>",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        // what the table of roles does not know is for nobody
        assert!(page.contains("<dd>nobody</dd>"));
    }

    proptest::proptest! {
        #[test]
        fn no_comment_becomes_markup(comment in "[ -~\n\u{e9}\u{2028}]{0,80}") {
            let tags = |page: &str| {
                let mut tags: Vec<String> = page
                    .split('<')
                    .skip(1)
                    .map(|rest| rest.split('>').next().unwrap_or_default().to_owned())
                    .collect();
                // what comments may have
                tags.retain(|tag| {
                    !["p", "/p", "pre", "/pre", "code", "/code", "strong", "/strong", "/a"].contains(&tag.as_str())
                        && !tag.starts_with("a href=\"#")
                });
                tags
            };
            let hostile = format!("<script>{comment}</script>\" onload='{comment}");
            proptest::prop_assert_eq!(tags(&page_of(&hostile)), tags(&page_of("")));
        }
    }

    /// Of WCAG 2.2: the luminance of `#rrggbb` or `#rgb`, and how far two of them are apart.
    fn luminance(colour: &str) -> f64 {
        let digits = colour.trim_start_matches('#');
        let width = digits.len() / 3;
        let part = |at: usize| {
            let text = &digits[at * width..(at + 1) * width];
            let text = if width == 1 {
                text.repeat(2)
            } else {
                text.to_owned()
            };
            let value = f64::from(u8::from_str_radix(&text, 16).unwrap()) / 255.0;
            match value <= 0.04045 {
                true => value / 12.92,
                false => ((value + 0.055) / 1.055).powf(2.4),
            }
        };
        0.2126 * part(0) + 0.7152 * part(1) + 0.0722 * part(2)
    }

    #[test]
    fn text_can_be_read_in_light_and_in_dark() {
        let colour = |scheme: &str, name: &str| {
            let (_, rest) = scheme.split_once(&format!("--{name}: ")).unwrap();
            luminance(rest.split(';').next().unwrap())
        };
        let schemes: Vec<&str> = STYLE.split(":root {").skip(1).collect();
        assert_eq!(schemes.len(), 2);
        for scheme in schemes {
            for text in ["text", "faint", "link"] {
                for ground in ["ground", "raised"] {
                    let (one, other) = (colour(scheme, text), colour(scheme, ground));
                    let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
                    assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.1}");
                }
            }
        }
    }
}
