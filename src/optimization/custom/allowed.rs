//! What an expression may say: names that there are, calls that are listed, one short loop.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};
use cel::common::types::CelDouble;

use crate::units::nearest;

use super::expression::{ExpressionError, place};
use super::variables::{VARIABLES, is_metric, metrics};

/// Nodes of the tree, those of expanded macros among them.
const MAX_NODES: usize = 1_000;
/// Operators in each other: evaluation is recursive.
const MAX_DEPTH: usize = 48;

/// What an expression may call, beside its operators.
const FUNCTIONS: [&str; 10] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "min",
    "max",
    "round",
    "floor",
    "ceil",
    "at_least",
];
const OPERATORS: [&str; 17] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];

/// Makes all numbers floating point, and refuses what is not allowed.
///
/// # Errors
/// The first that is not, with its place.
pub(super) fn allow(
    source: &str,
    places: &SourceInfo,
    tree: &mut IdedExpr,
) -> Result<(), ExpressionError> {
    let mut check = Check {
        source,
        places,
        nodes: 0,
        depth: 0,
        bound: Vec::new(),
    };
    check.node(tree, false)
}

/// A walk over the tree that makes numbers floating point and refuses what is not allowed.
struct Check<'s> {
    source: &'s str,
    places: &'s SourceInfo,
    nodes: usize,
    depth: usize,
    /// Names that the macros around bind.
    bound: Vec<String>,
}

impl Check<'_> {
    fn refuse<T>(&self, node: &IdedExpr, problem: String) -> Result<T, ExpressionError> {
        let at = self
            .places
            .offset_for(node.id)
            .map_or(0, |(at, _)| at as usize);
        let (line, column) = place(self.source, at.min(self.source.len()));
        Err(ExpressionError {
            line,
            column,
            problem,
        })
    }

    fn node(&mut self, node: &mut IdedExpr, tested: bool) -> Result<(), ExpressionError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.refuse(node, format!("more than {MAX_DEPTH} operators in each other; group them with brackets, or make it shorter"));
        }
        self.parts(node, tested)?;
        self.depth -= 1;
        Ok(())
    }

    fn parts(&mut self, node: &mut IdedExpr, tested: bool) -> Result<(), ExpressionError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.refuse(
                node,
                format!("more than {MAX_NODES} parts; make it shorter"),
            );
        }
        self.name(node, tested)?;
        match &mut node.expr {
            Expr::Unspecified | Expr::Ident(_) => Ok(()),
            Expr::Literal(literal) => {
                let number = match literal {
                    LiteralValue::Int(int) => Some(*int.inner() as f64),
                    LiteralValue::UInt(int) => Some(*int.inner() as f64),
                    _ => None,
                };
                if let Some(number) = number {
                    *literal = LiteralValue::Double(CelDouble::from(number));
                }
                Ok(())
            }
            Expr::Select(select) => {
                let tested = select.test;
                self.node(&mut select.operand, tested)
            }
            Expr::Call(call) => {
                for part in call.target.iter_mut().map(|target| &mut **target) {
                    self.node(part, false)?;
                }
                let indexes = call.func_name == operators::INDEX;
                for (at, part) in call.args.iter_mut().enumerate() {
                    // places in a list are whole numbers
                    if indexes && at == 1 && matches!(part.expr, Expr::Literal(_)) {
                        continue;
                    }
                    self.node(part, false)?;
                }
                Ok(())
            }
            Expr::List(list) => list
                .elements
                .iter_mut()
                .try_for_each(|one| self.node(one, false)),
            Expr::Map(map) => map
                .entries
                .iter_mut()
                .try_for_each(|entry| match &mut entry.expr {
                    EntryExpr::MapEntry(entry) => {
                        self.node(&mut entry.key, false)?;
                        self.node(&mut entry.value, false)
                    }
                    EntryExpr::StructField(field) => self.node(&mut field.value, false),
                }),
            Expr::Comprehension(one) => {
                self.node(&mut one.iter_range, false)?;
                self.bound = vec![one.iter_var.clone(), one.accu_var.clone()];
                self.bound.extend(one.iter_var2.clone());
                for part in [
                    &mut one.accu_init,
                    &mut one.loop_cond,
                    &mut one.loop_step,
                    &mut one.result,
                ] {
                    self.node(part, false)?;
                }
                self.bound.clear();
                Ok(())
            }
            Expr::Struct(_) => Ok(()),
        }
    }

    /// Whether there is what a node names.
    fn name(&self, node: &IdedExpr, tested: bool) -> Result<(), ExpressionError> {
        match &node.expr {
            Expr::Ident(name)
                if !VARIABLES.contains(&name.as_str()) && !self.bound.contains(name) =>
            {
                let meant = nearest(name, VARIABLES).unwrap_or_default();
                self.refuse(
                    node,
                    format!("there is no `{name}`; did you mean `{meant}`?"),
                )
            }
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(name)
                    if name == "metrics"
                        && !(tested || select.test)
                        && !is_metric(&select.field) =>
                {
                    let known = metrics();
                    let meant = nearest(&select.field, known.iter().map(String::as_str))
                        .unwrap_or_default();
                    let problem = format!(
                        "there is no metrics.{}; did you mean metrics.{meant}?",
                        select.field
                    );
                    self.refuse(node, problem)
                }
                _ => Ok(()),
            },
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                let internal = !self.bound.is_empty() && name == operators::NOT_STRICTLY_FALSE;
                if internal || OPERATORS.contains(&name) || FUNCTIONS.contains(&name) {
                    return Ok(());
                }
                let known = FUNCTIONS.join(", ");
                self.refuse(
                    node,
                    format!("`{name}` cannot be used here; there are {known}"),
                )
            }
            Expr::Comprehension(one) => {
                if !self.bound.is_empty() {
                    return self
                        .refuse(node, "a loop within a loop cannot be used here".to_owned());
                }
                let short = match &one.iter_range.expr {
                    Expr::Ident(name) => name == "bottlenecks",
                    Expr::List(_) => true,
                    _ => false,
                };
                match short {
                    true => Ok(()),
                    false => self.refuse(
                        node,
                        "only bottlenecks, or a list that is written out, can be looped over"
                            .to_owned(),
                    ),
                }
            }
            Expr::Struct(_) => self.refuse(node, "messages cannot be made here".to_owned()),
            _ => Ok(()),
        }
    }
}
