//! CEL with bounds: what one expression may cost is known before it runs.
//!
//! The interpreter has no cost limit of its own. Here an expression is short, holds few words and signs, calls only what
//! is listed, and loops at most once, over the bottlenecks or a list that is written out: so its cost is at most its size
//! times the length of one short list. All numbers are floating point, so that `2 * settings.max_num_seqs` and
//! `1.5 * settings.max_num_seqs` are both right.

use std::sync::{Arc, OnceLock};

use cel::common::ast::IdedExpr;
use cel::parser::Parser;
use cel::{Context, Env, ExecutionError, Value};

use crate::engine::Version;

use super::allowed::allow;
use super::variables::Variables;

/// Longest source.
pub const MAX_SOURCE_BYTES: usize = 4_096;
/// Words and signs of a source: no chain of them becomes a deep tree.
const MAX_TOKENS: usize = 400;
/// Brackets in brackets.
const MAX_NESTING: usize = 16;
/// Grammar rules in each other that the parser follows.
const MAX_RECURSION: u16 = 48;
/// An expression that may be evaluated.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    tree: IdedExpr,
}

/// An expression that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct ExpressionError {
    /// Line of the source, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// Why an expression has no value here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoValue {
    /// This is not told.
    Missing(String),
    /// It cannot be computed.
    Failed(String),
}

impl Expression {
    /// Reads and checks an expression.
    ///
    /// # Errors
    /// It is no CEL, says more than it may, or names what there is not.
    pub(super) fn parse(source: &str) -> Result<Self, ExpressionError> {
        check_size(source)?;
        let parser = Parser::new()
            .max_recursion_depth(MAX_RECURSION)
            .error_recovery_limit(1);
        let (mut tree, places) = parser.parse_with_source_info(source).map_err(|errors| {
            let first = errors.errors.first();
            let at = |part: isize| usize::try_from(part).unwrap_or(0).max(1);
            ExpressionError {
                line: first.map_or(1, |error| at(error.pos.0)),
                column: first.map_or(1, |error| at(error.pos.1)),
                problem: first.map_or_else(String::new, |error| shortened(&error.msg)),
            }
        })?;
        allow(source, &places, &mut tree)?;
        Ok(Self { tree })
    }

    /// Its value.
    ///
    /// # Errors
    /// Something that it needs is not told, or types do not go together.
    pub(super) fn value(&self, variables: &Variables) -> Result<Value, NoValue> {
        let mut context = Context::with_env(stdlib());
        for (name, value) in variables.all() {
            context.add_variable_from_value(name, value.clone());
        }
        let added = [
            context.add_function("min", |one: f64, other: f64| one.min(other)),
            context.add_function("max", |one: f64, other: f64| one.max(other)),
            context.add_function("round", |one: f64| one.round()),
            context.add_function("floor", |one: f64| one.floor()),
            context.add_function("ceil", |one: f64| one.ceil()),
            context.add_function("at_least", at_least),
        ];
        if let Some(error) = added.into_iter().find_map(Result::err) {
            return Err(NoValue::Failed(error.to_string()));
        }
        Value::resolve(&self.tree, &context).map_err(|error| match error {
            ExecutionError::NoSuchKey(key) => NoValue::Missing(key.to_string()),
            ExecutionError::UndeclaredReference(name) => NoValue::Missing(name.to_string()),
            other => NoValue::Failed(shortened(&other.to_string())),
        })
    }
}

/// Whether a version is this one or newer; not where one of them is none.
fn at_least(version: Arc<String>, wanted: Arc<String>) -> bool {
    let parse = |text: &str| text.parse::<Version>().ok();
    parse(&version)
        .zip(parse(&wanted))
        .is_some_and(|(version, wanted)| version >= wanted)
}

fn stdlib() -> Arc<Env> {
    static ENV: OnceLock<Arc<Env>> = OnceLock::new();
    ENV.get_or_init(|| Arc::new(Env::stdlib())).clone()
}

/// Messages of the parser repeat the source.
fn shortened(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect()
}

/// Before it is parsed: the parser and the tree's walkers are recursive.
fn check_size(source: &str) -> Result<(), ExpressionError> {
    let refuse = |at: usize, problem: String| {
        let (line, column) = place(source, at);
        Err(ExpressionError {
            line,
            column,
            problem,
        })
    };
    if source.len() > MAX_SOURCE_BYTES {
        return refuse(
            0,
            format!("{} bytes; at most {MAX_SOURCE_BYTES}", source.len()),
        );
    }
    let (mut tokens, mut nesting, mut in_word) = (0, 0, false);
    for (at, char) in source.char_indices() {
        let word = char.is_alphanumeric() || char == '_';
        if (word && !in_word) || !(word || char.is_whitespace()) {
            tokens += 1;
        }
        in_word = word;
        match char {
            '(' | '[' | '{' => nesting += 1,
            ')' | ']' | '}' => nesting -= 1,
            _ => {}
        }
        // what stands in quotes is counted as well: a long text is no condition
        if tokens > MAX_TOKENS {
            return refuse(
                at,
                format!("more than {MAX_TOKENS} words and signs; make it shorter"),
            );
        }
        if nesting > MAX_NESTING as i32 {
            return refuse(
                at,
                format!("more than {MAX_NESTING} brackets in each other"),
            );
        }
    }
    Ok(())
}

/// Line and column of a byte, both from 1.
pub(super) fn place(source: &str, at: usize) -> (usize, usize) {
    let before = source.get(..at).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before
        .chars()
        .rev()
        .take_while(|char| *char != '\n')
        .count()
        + 1;
    (line, column)
}
