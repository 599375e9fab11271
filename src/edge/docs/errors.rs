//! What errors carry, and the reasons that there are.

use super::contract::{Contract, ERROR_DETAILS};
use super::html::Html;
use crate::agent::Reason;

/// Where the section stands.
pub(super) const ANCHOR: &str = "errors";

/// Where a reason stands.
pub(super) fn anchor(reason: &str) -> String {
    format!("reason.{reason}")
}

pub(super) fn write(html: &mut Html, contract: &Contract) {
    html.tags("<section id=\"").text(ANCHOR).tags(
        "\">\n<h2>Errors</h2>\n\
         <p>Every error has a gRPC code, a sentence, and details in <code>grpc-status-details-bin</code>:</p>\n<ul>",
    );
    let carried = ERROR_DETAILS.into_iter().zip([
        ": always. Its domain is “perfagent”, its reason a word of the table, and its metadata has mostly a hint.",
        ": with INVALID_ARGUMENT, the fields that are wrong.",
        ": with UNAVAILABLE and RESOURCE_EXHAUSTED, when to try again.",
    ]);
    for (name, text) in carried {
        html.tags("<li>").link(name, name).tags(text).tags("</li>");
    }
    html.tags(
        "</ul>\n<table><thead><tr><th>Reason</th><th>Meaning</th><th>Told at</th></tr></thead><tbody>\n",
    );
    for reason in Reason::ALL {
        let word = reason.as_str();
        html.tags("<tr id=\"").text(&anchor(word));
        html.tags("\"><td>").code(word).tags("</td><td>");
        html.text(reason.meaning()).tags("</td><td>");
        for (at, (place, name)) in contract.naming(word).iter().enumerate() {
            html.tags(if at == 0 { "" } else { ", " });
            html.link(place, name);
        }
        html.tags("</td></tr>\n");
    }
    html.tags("</tbody></table>\n</section>\n");
}
