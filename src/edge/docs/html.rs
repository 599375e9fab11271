//! HTML under construction.

/// Text in which only what stands in our own source is markup.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup.
    pub(super) fn tags(&mut self, tags: &'static str) -> &mut Self {
        self.0.push_str(tags);
        self
    }

    /// Text, also within the quotes of an attribute. Nothing in it is markup.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for char in text.chars() {
            match char {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other => self.0.push(other),
            }
        }
        self
    }

    /// Text as code.
    pub(super) fn code(&mut self, text: &str) -> &mut Self {
        self.tags("<code>").text(text).tags("</code>")
    }

    /// A link to a place of this page.
    pub(super) fn link(&mut self, anchor: &str, text: &str) -> &mut Self {
        self.tags("<a href=\"#")
            .text(anchor)
            .tags("\">")
            .text(text)
            .tags("</a>")
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup() {
        let mut html = Html::default();
        html.tags("<i>").text("<b a=\"x\">&'").link("\"><b>", "<b>");
        assert_eq!(
            html.into_text(),
            "<i>&lt;b a=&quot;x&quot;&gt;&amp;&#39;<a href=\"#&quot;&gt;&lt;b&gt;\">&lt;b&gt;</a>"
        );
    }
}
