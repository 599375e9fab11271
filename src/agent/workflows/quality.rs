//! Asking the same prompts of a replica with a change and of one without.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::came::Came;
use super::site::Site;
use crate::agent::Agent;
use crate::scrape::{parse_url, shown_url};
use crate::workflow::{Answers, Command, Workflow, quality};

/// Between two tries at engines that do not answer.
const AGAIN: Duration = Duration::from_secs(2);
/// One answer; engines without a GPU take seconds a token.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
const PATH: &str = "/v1/completions";
const MAX_PROMPTS: usize = 1_000;
const MAX_FILE_BYTES: u64 = 8 << 20;

/// A line of the file of prompts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// What is asked.
    pub prompt: String,
    /// Tokens of the answer at most.
    #[serde(default = "default_tokens")]
    pub max_tokens: u32,
}

fn default_tokens() -> u32 {
    64
}

/// A file of prompts that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PromptsError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Unread {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line that is no prompt.
    #[error("{path}, line {line}: {why}; a line is {{\"prompt\": \"…\", \"max_tokens\": 64}}")]
    Line {
        /// Which file.
        path: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// None, or more than are worth asking.
    #[error("{path}: {count} prompts; from 1 to {MAX_PROMPTS} are meant")]
    Count {
        /// Which file.
        path: String,
        /// How many.
        count: usize,
    },
    /// Larger than any such file.
    #[error("{path}: larger than {MAX_FILE_BYTES} bytes")]
    Large {
        /// Which file.
        path: String,
    },
}

/// The prompts of a file, a JSON object a line.
///
/// # Errors
/// See [`PromptsError`].
pub fn read_prompts(path: &Path) -> Result<Vec<Prompt>, PromptsError> {
    let shown = || path.display().to_string();
    let unread = |source| PromptsError::Unread {
        path: shown(),
        source,
    };
    if std::fs::metadata(path).map_err(unread)?.len() > MAX_FILE_BYTES {
        return Err(PromptsError::Large { path: shown() });
    }
    let text = std::fs::read_to_string(path).map_err(unread)?;
    let mut prompts = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let prompt = serde_json::from_str(line).map_err(|error| PromptsError::Line {
            path: shown(),
            line: at + 1,
            why: error.to_string(),
        })?;
        prompts.push(prompt);
    }
    match (1..=MAX_PROMPTS).contains(&prompts.len()) {
        true => Ok(prompts),
        false => Err(PromptsError::Count {
            path: shown(),
            count: prompts.len(),
        }),
    }
}

/// A replica that is asked.
struct Asked {
    url: String,
    model: String,
}

impl Agent {
    /// Asks the same prompts of a target with the change and of one without, the latter twice.
    pub(super) async fn check_quality(&self, site: &Site, state: &Workflow) -> Came {
        match self.answers(site, state).await {
            Ok((answers, policy)) => match quality(&answers, policy) {
                Some(report) => Came::command(Command::QualityChecked(Box::new(report))),
                None => Came::later(AGAIN, &"there are no prompts"),
            },
            Err(problem) => Came::later(AGAIN, &problem),
        }
    }

    async fn answers(
        &self,
        site: &Site,
        state: &Workflow,
    ) -> Result<(Vec<Answers>, crate::workflow::QualityPolicy), String> {
        let canary = state
            .canary()
            .ok_or("the change goes out without a canary")?;
        let policy = canary.quality.ok_or("answers are not to be compared")?;
        let path = self
            .workflows
            .as_ref()
            .and_then(|one| one.quality_prompts());
        let path = path.ok_or("workflows.quality_prompts is not set any more")?;
        let prompts = read_prompts(path).map_err(|error| error.to_string())?;
        let (changed, unchanged) = canary.sides(state.step);
        let model = self.latest(&state.spec.instance_id).ok();
        let model = model.and_then(|answer| answer.latest.model_name().map(str::to_owned));
        let model = model.ok_or("the engine does not say which model it serves")?;
        let asked = |shown: Option<&String>| -> Result<Asked, String> {
            let shown = shown.ok_or("there is no replica to ask")?;
            let urls = &site.instance.metrics_urls;
            let url = urls.iter().find(|url| shown_url(url) == *shown);
            let url = url.ok_or_else(|| format!("{shown} is no replica any more"))?;
            let mut url = parse_url(url).map_err(|refusal| refusal.to_string())?;
            url.set_path(PATH);
            url.set_query(None);
            url.set_fragment(None);
            Ok(Asked {
                url: url.into(),
                model: model.clone(),
            })
        };
        let (canary, control) = (asked(changed.first())?, asked(unchanged.first())?);
        let mut answers = Vec::with_capacity(prompts.len());
        for prompt in &prompts {
            answers.push(Answers {
                canary: self.answer(&canary, prompt).await?,
                control: self.answer(&control, prompt).await?,
                again: self.answer(&control, prompt).await?,
            });
        }
        Ok((answers, policy))
    }

    async fn answer(&self, of: &Asked, prompt: &Prompt) -> Result<String, String> {
        let body = json!({
            "model": of.model,
            "prompt": prompt.prompt,
            "max_tokens": prompt.max_tokens,
            "temperature": 0,
        });
        let answer = self
            .fetcher
            .control_post(&of.url, &body, ANSWER_TIMEOUT)
            .await;
        let answer = answer.map_err(|failure| format!("{}: {failure}", shown_url(&of.url)))?;
        let text = answer
            .body
            .pointer("/choices/0/text")
            .and_then(|text| text.as_str());
        match (answer.status, text) {
            (200, Some(text)) => Ok(text.to_owned()),
            (200, None) => Err(format!("{} answers without a text", shown_url(&of.url))),
            (status, _) => Err(format!("{}: HTTP status {status}", shown_url(&of.url))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_file_has_a_prompt_a_line() {
        let two =
            file("{\"prompt\": \"One and one is\"}\n\n{\"prompt\": \"Who?\", \"max_tokens\": 5}\n");
        let prompts = read_prompts(two.path()).unwrap();
        let tokens: Vec<u32> = prompts.iter().map(|one| one.max_tokens).collect();
        assert_eq!(tokens, [64, 5]);
        let wrong = file("{\"prompt\": \"a\"}\n{\"promt\": \"b\"}\n");
        let said = read_prompts(wrong.path()).unwrap_err().to_string();
        assert!(said.contains("line 2"), "{said}");
        let none = read_prompts(file("\n").path()).unwrap_err().to_string();
        assert!(none.contains("0 prompts"), "{none}");
        let gone = read_prompts(Path::new("/nowhere/prompts")).unwrap_err();
        assert!(matches!(gone, PromptsError::Unread { .. }));
    }
}
