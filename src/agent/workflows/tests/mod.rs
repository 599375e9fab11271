//! Workflows over a store on disk, with an engine that answers and an actuator that can be made to fail.

mod bench;
mod faults;
mod quality;
mod room;
mod route;
mod whole;
