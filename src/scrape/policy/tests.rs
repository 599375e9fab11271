use super::*;

fn local() -> UrlPolicy {
    UrlPolicy {
        serves_loopback_only: true,
        ..UrlPolicy::default()
    }
}

fn exposed(allow: &[&str]) -> UrlPolicy {
    UrlPolicy {
        serves_loopback_only: false,
        allow: allow.iter().map(|rule| rule.parse().unwrap()).collect(),
        purpose: Purpose::Scrape,
    }
}

fn hooks(allow: &[&str]) -> UrlPolicy {
    UrlPolicy {
        purpose: Purpose::Webhook,
        ..exposed(allow)
    }
}

#[test]
fn what_is_never_fetched_in_any_spelling() {
    for url in [
        "http://169.254.169.254/metrics",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:a9fe:a9fe::1]/",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "http://[fd00:ec2::23]/",
        "http://[fd20:ce::254]/",
        "http://168.63.129.16/",
        "http://[::ffff:0:169.254.169.254]/",
        "http://100.100.100.200/",
        "http://0.0.0.0/",
        "http://0.1.2.3/",
        "http://[::]/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://[ff02::1]/",
    ] {
        for policy in [local(), exposed(&["0.0.0.0/0", "::/0"])] {
            let refusal = policy.check(url).unwrap_err();
            assert!(matches!(refusal, Refusal::Never { .. }), "{url}: {refusal}");
        }
    }
}

#[test]
fn an_agent_on_loopback_fetches_what_its_callers_reach() {
    for url in [
        "http://127.0.0.1:8000/metrics",
        "http://[::1]:8000/metrics",
        "http://10.1.2.3/metrics",
        "https://engine.example/metrics",
    ] {
        assert!(local().check(url).is_ok(), "{url}");
    }
}

#[test]
fn an_exposed_agent_fetches_only_what_is_listed() {
    let policy = exposed(&[
        "10.0.0.0/8",
        "vllm.example",
        "*.svc.cluster.local",
        "fd12::/16",
    ]);
    for url in [
        "http://10.9.8.7/metrics",
        "http://vllm.example/metrics",
        "http://VLLM.example./metrics",
        "http://a.b.svc.cluster.local/metrics",
        "http://[fd12::1]/metrics",
    ] {
        assert!(policy.check(url).is_ok(), "{url}");
    }
    for url in [
        "http://127.0.0.1/metrics",
        "http://192.168.1.1/metrics",
        "http://8.8.8.8/metrics",
        "http://[fd13::1]/metrics",
        // an allowed prefix that leads to an IPv4 host that is not
        "http://[::ffff:127.0.0.1]/metrics",
    ] {
        assert!(
            matches!(policy.check(url), Err(Refusal::NotAllowed { .. })),
            "{url}"
        );
    }
    let resolved = |name, address: &str| policy.check_address(address.parse().unwrap(), Some(name));
    assert!(resolved("vllm.example", "192.168.1.1").is_ok());
    assert!(resolved("other.example", "10.0.0.1").is_ok());
    assert!(resolved("other.example", "192.168.1.1").is_err());
    assert!(resolved("vllm.example", "169.254.169.254").is_err());
    assert!(exposed(&["a.example"]).check("http://b.example/").is_err());
    assert!(exposed(&["*.example"]).check("http://example/").is_err());
}

#[test]
fn webhooks_go_to_public_addresses_and_where_it_is_said() {
    for url in [
        "https://hooks.example/x",
        "http://8.8.8.8/",
        "http://[2606:4700::1]/",
        "http://[64:ff9b::808:808]/",
    ] {
        assert!(hooks(&[]).check(url).is_ok(), "{url}");
    }
    for url in [
        "http://127.0.0.1/",
        "http://10.1.2.3/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://100.64.0.1/",
        "http://192.0.0.8/",
        "http://198.18.0.1/",
        "http://250.1.2.3/",
        "http://[::1]/",
        "http://[fd12::1]/",
        "http://[::ffff:10.1.2.3]/",
        "http://[64:ff9b::a01:203]/",
        "http://[2002:a01:203::1]/",
        "http://[2001:db8::1]/",
        "http://[2001::1]/",
    ] {
        let refusal = hooks(&[]).check(url).unwrap_err();
        let not_allowed = matches!(
            refusal,
            Refusal::NotAllowed {
                purpose: Purpose::Webhook,
                ..
            }
        );
        assert!(not_allowed, "{url}: {refusal}");
        assert!(
            refusal.to_string().ends_with("[webhook] allow"),
            "{refusal}"
        );
    }
    // a name leads where it leads, and that is looked at
    let private = "10.1.2.3".parse().unwrap();
    let resolved = |policy: &UrlPolicy| policy.check_address(private, Some("hooks.example"));
    assert!(resolved(&hooks(&[])).is_err());
    assert!(resolved(&hooks(&["hooks.example"])).is_ok());
    assert!(resolved(&hooks(&["10.0.0.0/8"])).is_ok());
    // and what is never fetched is told nothing either
    let everything = hooks(&["0.0.0.0/0", "::/0"]);
    assert!(everything.check("http://127.0.0.1/").is_ok());
    let metadata = everything.check("http://169.254.169.254/").unwrap_err();
    assert!(matches!(metadata, Refusal::Never { .. }), "{metadata}");
}

#[test]
fn only_plain_http_urls() {
    let refusal = |url| local().check(url).unwrap_err();
    assert!(matches!(refusal("ftp://x/"), Refusal::Scheme(_)));
    assert!(matches!(refusal("file:///etc/passwd"), Refusal::Scheme(_)));
    assert!(matches!(refusal("metrics"), Refusal::NotAUrl(_)));
    assert!(matches!(refusal("http://u:p@x/"), Refusal::Credentials));
}

#[test]
fn rules_are_checked_when_read() {
    for rule in ["10.0.0.0/33", "10.0.0.0/x", "", "*.", "a b", "http://x"] {
        assert!(rule.parse::<AllowRule>().is_err(), "{rule}");
    }
    let one = "10.0.0.1".parse::<AllowRule>().unwrap();
    assert_eq!(one, AllowRule::Network("10.0.0.1/32".parse().unwrap()));
}

#[test]
fn messages_show_no_secrets() {
    assert_eq!(
        shown_url("http://user:pass@h:1/metrics?token=s#x"),
        "http://h:1/metrics"
    );
    assert_eq!(shown_url("user:pass@h"), "user:pass@h");
}
