//! Places where tests have things go wrong. Nothing of it is there without the feature `failpoints`.
//!
//! The variable `FAILPOINTS` of a `perfagent` says which strike, how and when: `store::before_commit=17*off->panic` kills the
//! process as `kill -9` does when the 18th commit is about to be made, `store::told_failed=5%return` has each twentieth say
//! that it failed. What strikes says so on stderr.

/// A place by its name: `failpoint!("store::before_commit")`; where it can also be made to return,
/// `failpoint!("store::told_failed", value)`.
#[cfg(feature = "failpoints")]
macro_rules! failpoint {
    ($name:literal) => {
        fail::fail_point!($name)
    };
    ($name:literal, $returned:expr) => {
        fail::fail_point!($name, |_| {
            $crate::failpoint::strikes($name);
            $returned
        })
    };
}

#[cfg(not(feature = "failpoints"))]
macro_rules! failpoint {
    ($name:literal $(, $returned:expr)?) => {};
}

/// Has the places strike that the environment names, until the process ends. One that is to panic kills it.
#[cfg(feature = "failpoints")]
pub(crate) fn from_environment() {
    std::mem::forget(fail::FailScenario::setup());
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let message = info.payload().downcast_ref::<String>();
        let name = message.and_then(|message| message.strip_prefix("failpoint "));
        if let Some(name) = name.and_then(|name| name.strip_suffix(" panic")) {
            strikes(name);
            let own = rustix::process::getpid();
            let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        }
        usual(info);
    }));
}

#[cfg(feature = "failpoints")]
pub(crate) fn strikes(name: &str) {
    eprintln!("failpoint: {name}");
}
