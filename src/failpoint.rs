//! Places where tests have things go wrong. Nothing of it is there without the feature `failpoints`.

/// A place by its name: `failpoint!("store::before_commit")`; where it can also be made to return,
/// `failpoint!("store::told_failed", value)`.
#[cfg(feature = "failpoints")]
macro_rules! failpoint {
    ($name:literal) => {
        fail::fail_point!($name)
    };
    ($name:literal, $returned:expr) => {
        fail::fail_point!($name, |_| $returned)
    };
}

#[cfg(not(feature = "failpoints"))]
macro_rules! failpoint {
    ($name:literal $(, $returned:expr)?) => {};
}
