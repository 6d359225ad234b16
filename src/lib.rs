//! Graft: a replicated state machine as a library.
