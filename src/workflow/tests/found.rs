//! What was once wrong.
