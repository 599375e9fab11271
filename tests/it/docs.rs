//! The API reference as a browser gets it: all of the contract is on it, every link leads somewhere, and it needs
//! nothing from elsewhere.

use std::collections::{BTreeSet, HashSet};

use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use perfagent::agent::Reason;
use perfagent::auth::{Digest, Role};
use prost_reflect::{Kind, MessageDescriptor};

use crate::contract::pool;
use crate::fake::TestAgent;
use crate::http::get;
use crate::pki::Files;

/// The page, with its headers.
async fn fetch(
    agent: &TestAgent,
    method: Method,
    version: Version,
) -> (StatusCode, HeaderMap, String) {
    let client = Client::builder(TokioExecutor::new())
        .http2_only(version == Version::HTTP_2)
        .build_http();
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{}/docs", agent.address))
        .version(version)
        .body(Empty::<Bytes>::new())
        .unwrap();
    let (head, body) = client.request(request).await.unwrap().into_parts();
    assert_eq!(head.version, version);
    let body = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    (head.status, head.headers, text)
}

async fn page() -> String {
    let agent = TestAgent::start().await;
    let (status, _, page) = fetch(&agent, Method::GET, Version::HTTP_11).await;
    assert_eq!(status, StatusCode::OK);
    page
}

/// What stands between a mark and the next `"`.
fn values<'a>(page: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    page.split(mark)
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
}

/// The part of the page from an id to the end of its element.
fn part<'a>(page: &'a str, id: &str, end: &str) -> &'a str {
    let mark = format!(" id=\"{id}\"");
    let (_, rest) = page
        .split_once(&mark)
        .unwrap_or_else(|| panic!("{id} is not on the page"));
    rest.split(end).next().unwrap()
}

/// The text of a piece of HTML.
fn text(html: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for char in html.chars() {
        match char {
            '<' => inside = true,
            '>' => inside = false,
            other if !inside => out.push(other),
            _ => {}
        }
    }
    for (escaped, char) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ] {
        out = out.replace(escaped, char);
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn all_of_the_contract_is_on_the_page() {
    let page = page().await;
    let pool = pool();
    let ours = |name: &str| name.starts_with("perfagent.v1") || name.starts_with("grpc.health.v1");
    let http = pool.get_extension_by_name("google.api.http").unwrap();
    let mut seen = [0; 5];
    for service in pool.services() {
        part(&page, service.full_name(), "</h2>");
        seen[0] += 1;
        for method in service.methods() {
            let shown = part(&page, method.full_name(), "</section>");
            let path = format!("/{}/{}", service.full_name(), method.name());
            assert!(shown.contains(&path), "{shown}");
            for message in [method.input(), method.output()] {
                let link = format!("<a href=\"#{}\">", message.full_name());
                assert!(shown.contains(&link), "{link} in {shown}");
            }
            let rule = method.options().get_extension(&http).into_owned();
            let rule = rule.as_message().unwrap();
            for verb in ["get", "post", "patch", "delete"] {
                let path = rule.get_field_by_name(verb).unwrap();
                if rule.has_field_by_name(verb) {
                    let told = format!("{} {}", verb.to_uppercase(), path.as_str().unwrap());
                    assert!(shown.contains(&told), "{told} in {shown}");
                }
            }
            seen[1] += 1;
        }
    }
    let messages: Vec<MessageDescriptor> = pool
        .all_messages()
        .filter(|message| ours(message.full_name()) && !message.is_map_entry())
        .collect();
    for message in &messages {
        part(&page, message.full_name(), "</h3>");
        seen[2] += 1;
        for field in message.fields() {
            let shown = part(&page, field.full_name(), "</tr>");
            assert!(shown.contains(&format!("<code>{}</code>", field.name())));
            assert!(shown.contains(&format!("<small>{}</small>", field.number())));
            if let Kind::Message(of) = field.kind()
                && !field.is_map()
            {
                assert!(
                    shown.contains(&format!("<a href=\"#{}\">", of.full_name())),
                    "{shown}"
                );
            }
            let told = if field.is_list() || field.is_map() {
                "may be empty"
            } else if field
                .containing_oneof()
                .is_some_and(|of| !of.is_synthetic())
            {
                "of the oneof"
            } else if field.supports_presence() {
                "optional"
            } else {
                "default "
            };
            assert!(shown.contains(&format!("<td>{told}")), "{told}: {shown}");
            seen[3] += 1;
        }
    }
    for one in pool.all_enums().filter(|one| ours(one.full_name())) {
        part(&page, one.full_name(), "</h3>");
        for value in one.values() {
            let shown = part(&page, value.full_name(), "</tr>");
            assert!(shown.contains(&format!("<code>{}</code>", value.name())));
            seen[4] += 1;
        }
    }
    let least = [4, 14, 40, 150, 40];
    assert!(
        seen.iter().zip(least).all(|(seen, least)| *seen >= least),
        "{seen:?}"
    );
}

#[tokio::test]
async fn what_comments_say_is_on_the_page() {
    let page = page().await;
    let pool = pool();
    let whole = text(&page);
    let mut count = 0;
    for file in crate::contract::files(&pool) {
        let info = file
            .file_descriptor_proto()
            .source_code_info
            .clone()
            .unwrap();
        for location in info.location {
            // below the file itself: services, messages, enums and what they hold
            if location.path.len() < 2 {
                continue;
            }
            let Some(comment) = location.leading_comments else {
                continue;
            };
            let comment = comment.replace('`', "");
            for paragraph in comment.split("\n\n").filter(|text| !text.trim().is_empty()) {
                let told = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(whole.contains(&told), "{told}");
                count += 1;
            }
        }
    }
    assert!(count > 250, "{count}");
    for reason in Reason::ALL {
        let shown = part(&page, &format!("reason.{}", reason.as_str()), "</tr>");
        assert!(!reason.meaning().is_empty());
        assert!(text(shown).contains(reason.meaning()), "{shown}");
    }
}

#[tokio::test]
async fn who_may_call_is_what_the_table_says() {
    let page = page().await;
    for (method, who) in [
        (
            "perfagent.v1.MetricsService.CollectMetrics",
            "viewer, operator, approver or admin",
        ),
        (
            "perfagent.v1.InstanceService.DeleteInstance",
            "operator or admin; it changes",
        ),
        ("grpc.health.v1.Health.Check", "everybody"),
    ] {
        let shown = text(part(&page, method, "</dl>"));
        assert!(shown.contains(&format!("Who may call{who}")), "{shown}");
    }
    // every method that is served has a row
    assert!(!page.contains("<dd>nobody</dd>"));
}

#[tokio::test]
async fn links_resolve_and_nothing_comes_from_elsewhere() {
    let page = page().await;
    let ids: Vec<&str> = values(&page, " id=\"").collect();
    let unique: HashSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "an id is there twice");
    let mut links = BTreeSet::new();
    for link in values(&page, " href=\"") {
        let anchor = link
            .strip_prefix('#')
            .unwrap_or_else(|| panic!("{link} leads away"));
        assert!(unique.contains(anchor), "{link} leads nowhere");
        links.insert(anchor);
    }
    assert!(links.len() > 100, "{links:?}");
    // what the table of contents does not lead to, nobody finds
    let contents = page.split("</nav>").next().unwrap();
    for id in values(&page, "<section id=\"") {
        assert!(contents.contains(&format!("\"#{id}\"")), "{id}");
    }
    for word in [
        "<script", "<img", "<link", " src=", "@import", "url(", " on",
    ] {
        let tags = page.split('<').skip(1).filter_map(|rest| {
            let tag = rest.split('>').next()?;
            Some(format!("<{tag}"))
        });
        let style = page.split("</style>").next().unwrap();
        for tag in tags.chain([style.to_owned()]) {
            assert!(!tag.contains(word), "{word} in {tag}");
        }
    }
    assert!(page.contains("prefers-color-scheme: dark"));
}

#[tokio::test]
async fn elements_are_closed_in_the_order_they_were_opened() {
    let page = page().await;
    let (_, body) = page.split_once("</style>").unwrap();
    let mut open = vec!["html", "head"];
    for tag in body.split('<').skip(1).map(|rest| {
        let (tag, _) = rest.split_once('>').expect("a tag that ends");
        tag
    }) {
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{tag}"),
            None => open.push(tag.split(' ').next().unwrap()),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[tokio::test]
async fn both_versions_of_http_and_head_answer_alike() {
    let agent = TestAgent::start().await;
    let (_, _, page) = fetch(&agent, Method::GET, Version::HTTP_11).await;
    let style = page.split_once("<style>").unwrap().1;
    let style = style.split("</style>").next().unwrap();
    let digest =
        base64::engine::general_purpose::STANDARD.encode(Digest::of(style.as_bytes()).bytes());
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for method in [Method::GET, Method::HEAD] {
            let (status, headers, body) = fetch(&agent, method.clone(), version).await;
            assert_eq!(status, StatusCode::OK);
            let header = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
            assert_eq!(header("content-type"), "text/html; charset=utf-8");
            assert_eq!(header("content-length"), page.len().to_string());
            assert_eq!(header("x-content-type-options"), "nosniff");
            let policy = header("content-security-policy");
            assert!(policy.starts_with("default-src 'none'; "), "{policy}");
            assert!(
                policy.contains(&format!("style-src 'sha256-{digest}'")),
                "{policy}"
            );
            assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
            let expected = if method == Method::GET { &page } else { "" };
            assert!(body == *expected, "{method} {version:?}");
        }
        let (status, _, _) = fetch(&agent, Method::POST, version).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    }
    // as large as a figure, and not of a figure's order
    assert!(page.len() < 500_000, "{} bytes", page.len());
}

#[tokio::test]
async fn it_is_for_everybody_who_calls_the_agent_by_its_name() {
    let files = Files::new();
    let token = files.token("viewer", Role::Viewer);
    let agent = TestAgent::with(|config| files.with_credentials(config)).await;
    let with_token = format!("localhost\r\nAuthorization: Bearer {}", token.expose());
    for host in [
        "localhost",
        "localhost\r\nAuthorization: Bearer x",
        &with_token,
    ] {
        let answer = get(&agent, "/docs", host).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
        // everybody is told the contract, but not which version runs here
        assert!(!answer.contains(env!("CARGO_PKG_VERSION")));
        assert!(!answer.to_ascii_lowercase().contains("access-control"));
    }
    let (status, _, _) = fetch(&agent, Method::GET, Version::HTTP_2).await;
    assert_eq!(status, StatusCode::OK);
    let answer = get(&agent, "/docs", "evil.example").await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    assert!(!answer.contains("perfagent.v1"), "{answer}");
}
