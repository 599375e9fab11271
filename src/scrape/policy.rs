//! Which URLs may be fetched, or posted to.
//!
//! Checked twice: the URL itself, so that literal addresses are refused before a connection is made, and every
//! address that a name resolves to, in the resolver that the client uses. So there is no second look-up that could
//! answer otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use url::{Host, Url};

use super::network::Network;

/// Which URLs may be fetched.
#[derive(Debug, Clone, Default)]
pub struct UrlPolicy {
    /// The agent serves this machine only, so its callers reach private and loopback addresses anyway.
    pub serves_loopback_only: bool,
    /// What else may be fetched when it does not.
    pub allow: Vec<AllowRule>,
    /// What is reached, and by whose list.
    pub purpose: Purpose,
}

/// What URLs are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Engines, which mostly have private addresses: `[scrape] allow` says which.
    #[default]
    Scrape,
    /// Receivers of webhooks, which mostly have public ones: others only as `[webhook] allow` says.
    Webhook,
}

/// One entry of `[scrape] allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowRule {
    /// Addresses by prefix: `10.0.0.0/8`, `fd00::/8`, or a single address.
    Network(Network),
    /// A host name: `vllm-1.example`.
    Host(String),
    /// All names below one: `*.svc.cluster.local`.
    Below(String),
}

/// Why a URL is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Not a URL.
    #[error("not a URL: {0}")]
    NotAUrl(String),
    /// Neither http nor https.
    #[error("scheme `{0}` is neither http nor https")]
    Scheme(String),
    /// A user name or password in the URL.
    #[error("credentials in a URL end up in logs")]
    Credentials,
    /// No host.
    #[error("no host")]
    NoHost,
    /// An address that is never fetched.
    #[error("{address} is {what}, which is never fetched")]
    Never {
        /// The address.
        address: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// An address that no rule allows.
    #[error("{target} is not in {} allow", purpose.section())]
    NotAllowed {
        /// Host name or address.
        target: String,
        /// What for.
        purpose: Purpose,
    },
}

impl Refusal {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotAUrl(_) | Self::NoHost | Self::Scheme(_) => {
                "give a whole URL, such as http://127.0.0.1:8000/metrics"
            }
            Self::Credentials => "remove user name and password from the URL",
            Self::Never { .. } => {
                "link-local, metadata, multicast and unspecified addresses are never fetched"
            }
            Self::NotAllowed {
                purpose: Purpose::Webhook,
                ..
            } => {
                "webhooks go to public addresses, and else only where [webhook] allow in the config file lists them: \
                 addresses as 10.0.0.0/8, names as hooks.example or *.example"
            }
            Self::NotAllowed { .. } => {
                "an agent that listens beyond loopback fetches only what [scrape] allow in its config \
                 file lists: addresses as 10.0.0.0/8, names as vllm.example or *.example"
            }
        })
    }
}

impl UrlPolicy {
    /// Parses a URL and checks everything that can be checked without asking the resolver.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn check(&self, text: &str) -> Result<Url, Refusal> {
        let url = parse_url(text)?;
        match url.host() {
            None => Err(Refusal::NoHost),
            Some(Host::Ipv4(address)) => self.check_address(address.into(), None),
            Some(Host::Ipv6(address)) => self.check_address(address.into(), None),
            Some(Host::Domain(name)) => self.check_name(name),
        }?;
        Ok(url)
    }

    /// Before the look-up: a name that no rule can allow is not even resolved.
    fn check_name(&self, name: &str) -> Result<(), Refusal> {
        let could_be_allowed = self.serves_loopback_only
            || self.purpose == Purpose::Webhook
            || self.names(name)
            || self
                .allow
                .iter()
                .any(|rule| matches!(rule, AllowRule::Network(_)));
        if could_be_allowed {
            Ok(())
        } else {
            Err(Refusal::NotAllowed {
                target: name.to_owned(),
                purpose: self.purpose,
            })
        }
    }

    /// Checks an address that is to be connected to, and the name that it came from.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn check_address(&self, address: IpAddr, name: Option<&str>) -> Result<(), Refusal> {
        for form in forms(address) {
            if let Some(what) = never(form) {
                return Err(Refusal::Never { address, what });
            }
        }
        let allowed = self.serves_loopback_only
            || name.is_some_and(|name| self.names(name))
            // of an address that holds another, both must be allowed
            || forms(address).all(|form| self.networks(form))
            || (self.purpose == Purpose::Webhook && is_public(address));
        if allowed {
            Ok(())
        } else {
            Err(Refusal::NotAllowed {
                target: match name {
                    Some(name) => format!("{name} ({address})"),
                    None => address.to_string(),
                },
                purpose: self.purpose,
            })
        }
    }

    fn names(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.allow.iter().any(|rule| match rule {
            AllowRule::Host(host) => *host == name,
            AllowRule::Below(suffix) => name
                .strip_suffix(suffix.as_str())
                .is_some_and(|rest| rest.ends_with('.')),
            AllowRule::Network(_) => false,
        })
    }

    fn networks(&self, candidate: IpAddr) -> bool {
        self.allow.iter().any(|rule| match rule {
            AllowRule::Network(network) => network.contains(candidate),
            AllowRule::Host(_) | AllowRule::Below(_) => false,
        })
    }
}

impl Purpose {
    fn section(self) -> &'static str {
        match self {
            Self::Scrape => "[scrape]",
            Self::Webhook => "[webhook]",
        }
    }
}

/// A whole http or https URL without credentials. Says nothing of where it leads.
///
/// # Errors
/// A [`Refusal`] of the text itself.
pub fn parse_url(text: &str) -> Result<Url, Refusal> {
    let url = Url::parse(text).map_err(|error| Refusal::NotAUrl(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refusal::Scheme(url.scheme().to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::Credentials);
    }
    if url.host().is_none() {
        return Err(Refusal::NoHost);
    }
    Ok(url)
}

/// The address itself and, where it carries an IPv4 address, that one.
fn forms(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let embedded = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => embedded_v4(v6),
    };
    [Some(address), embedded.map(IpAddr::V4)]
        .into_iter()
        .flatten()
}

/// IPv4-mapped, -translated and -compatible addresses, NAT64 (64:ff9b::/96) and 6to4 (2002::/16) lead to an IPv4 host.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, .., y, z] = address.segments();
    let [.., w, x, _, _] = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    let low = join(y, z);
    match (a, b) {
        (0x2002, _) => {
            let [_, high, low, ..] = address.segments();
            Some(join(high, low))
        }
        (0x0064, 0xff9b) => Some(low),
        (0, 0) if (w, x) == (0, 0xffff) || (w, x) == (0xffff, 0) => Some(low),
        (0, 0) if (w, x) == (0, 0) && !address.is_unspecified() && !address.is_loopback() => {
            Some(low)
        }
        _ => None,
    }
}

/// Addresses of the clouds' metadata services that are not link-local.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

fn never(address: IpAddr) -> Option<&'static str> {
    if METADATA.contains(&address) {
        return Some("a metadata service");
    }
    match address {
        IpAddr::V4(v4) if v4.is_link_local() => Some("link-local"),
        IpAddr::V4(v4) if v4.is_multicast() => Some("multicast"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("broadcast"),
        IpAddr::V4(v4) if matches!(v4.octets(), [0, ..]) => Some("unspecified"),
        // all of fd00:ec2::/32 serves instances' metadata and credentials
        IpAddr::V6(v6) if matches!(v6.segments(), [0xfd00, 0xec2, ..]) => {
            Some("a metadata service")
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
        IpAddr::V6(v6) if v6.is_multicast() => Some("multicast"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("unspecified"),
        _ => None,
    }
}

/// Whether anybody reaches it: an address of the internet (IANA's registries of special-purpose addresses). One that
/// leads to an IPv4 host is as public as that one.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let special = match v4.octets() {
                [100, second, ..] => second & 0xc0 == 64,
                [192, 0, third, _] => matches!(third, 0 | 2),
                [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] | [240..=255, ..] => true,
                _ => false,
            };
            !(special || v4.is_private() || v4.is_loopback())
        }
        IpAddr::V6(v6) => match (embedded_v4(v6), v6.segments()) {
            (Some(v4), _) => is_public(v4.into()),
            // Teredo and other protocols, and addresses for documentation
            (None, [0x2001, second, ..]) => second >= 0x200 && second != 0xdb8,
            (None, [first, ..]) => first & 0xe000 == 0x2000 && first != 0x3fff,
        },
    }
}

/// An entry of `[scrape] allow` or `[webhook] allow` that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is neither a network (10.0.0.0/8), an address, a host name nor a pattern (*.example)"
)]
pub struct BadAllowRule(String);

impl FromStr for AllowRule {
    type Err = BadAllowRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadAllowRule(text.to_owned());
        if let Ok(network) = text.parse() {
            return Ok(Self::Network(network));
        }
        if text.contains('/') {
            return Err(bad());
        }
        let lower = text.to_ascii_lowercase();
        let (name, below) = match lower.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (lower.as_str(), false),
        };
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        match (is_name, below) {
            (false, _) => Err(bad()),
            (true, true) => Ok(Self::Below(name.to_owned())),
            (true, false) => Ok(Self::Host(name.to_owned())),
        }
    }
}

/// A URL as it may stand in a message: query and credentials can hold secrets.
pub fn shown_url(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) => {
            parsed.set_query(None);
            parsed.set_fragment(None);
            // neither can fail where there is a host, and without one there is nothing to remove
            let _ = parsed.set_username("");
            let _ = parsed.set_password(None);
            parsed.into()
        }
        Err(_) => "metrics_url".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
