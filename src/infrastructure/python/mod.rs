//! The native module `graft._graft`. Python's own layer on top of it is what users see.
//!
//! The engine's threads never touch the interpreter. Only the machine's thread does, and the callers' own.

mod calls;
mod certificates;
mod changes;
mod client;
mod completions;
mod convert;
mod door;
mod errors;
mod files;
mod fork;
mod logs;
mod machine;
mod msgpack;
mod node;
mod offline;
mod readers;

use std::collections::BTreeMap;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::infrastructure::{Next, Setting};

/// How long a waiting call sleeps before it looks for signals, so that Ctrl-C is answered.
const SLICE: Duration = Duration::from_millis(50);

/// The engine, in Rust. Private: use the names of `graft`.
#[pymodule(name = "_graft")]
mod module {
    #[pymodule_export]
    use super::calls::NativeCalls;
    #[pymodule_export]
    use super::certificates::{NativeAuthority, NativeDepot};
    #[pymodule_export]
    use super::client::NativeClient;
    #[pymodule_export]
    use super::completions::Completions;
    #[pymodule_export]
    use super::node::NativeNode;
    #[pymodule_export]
    use super::offline::{recover, restore, verify_backup};
    #[pymodule_export]
    use super::readers::{NativeEvents, NativeWatch};
    #[pymodule_export]
    use super::{
        after_fork_in_child, build_info, command_line, exit_status, interrupt, log_level, logs_wake, msgpack_trouble,
        take_logs,
    };
}

/// What this build of the engine is: `version` (str) and `debug` (bool: slow, for development).
#[pyfunction]
fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let info = PyDict::new(py);
    info.set_item("version", env!("CARGO_PKG_VERSION"))?;
    info.set_item("debug", env!("GRAFT_OPT_LEVEL") == "0")?;
    Ok(info)
}

/// Does what a command line says, the program's name first. Gives the status to exit with, or a dict of what is to be run.
#[pyfunction]
fn command_line(py: Python<'_>, arguments: Vec<std::ffi::OsString>) -> PyResult<Bound<'_, PyAny>> {
    let node = PyDict::new(py);
    let start = match py.detach(|| crate::infrastructure::command_line(arguments)) {
        Next::Exit(status) => return Ok(status.into_pyobject(py)?.into_any()),
        Next::Dev(dev) => {
            node.set_item("verb", "dev")?;
            node.set_item("machine", dev.machine)?;
            node.set_item("nodes", dev.nodes)?;
            node.set_item("data_dir", dev.data_dir)?;
            node.set_item("json", dev.json)?;
            return Ok(node.into_any());
        }
        Next::Check { settings, json } => {
            node.set_item("verb", "check")?;
            node.set_item("settings", given(py, &settings)?)?;
            node.set_item("json", json)?;
            return Ok(node.into_any());
        }
        Next::Start(start) => start,
    };
    node.set_item("verb", "start")?;
    node.set_item("id", start.id())?;
    node.set_item("address", start.address)?;
    node.set_item("machine", start.machine)?;
    node.set_item("data_dir", start.data_dir)?;
    node.set_item("bind", start.bind)?;
    node.set_item("metrics", start.metrics)?;
    node.set_item("cluster", start.cluster)?;
    node.set_item("tls", start.tls)?;
    node.set_item("insecure", start.insecure)?;
    node.set_item("json", start.json)?;
    node.set_item("settings", given(py, &start.settings)?)?;
    Ok(node.into_any())
}

/// Settings as `graft.Config` takes them: texts and numbers.
fn given<'py>(py: Python<'py>, settings: &BTreeMap<String, Setting>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (key, value) in settings {
        match value {
            Setting::Text(text) => dict.set_item(key, text)?,
            Setting::Whole(number) => dict.set_item(key, number)?,
            Setting::Real(number) => dict.set_item(key, number)?,
        }
    }
    Ok(dict)
}

/// Ends the wait of `command_line`, on another thread, for something that may have been done already, if it waits for such a
/// thing: what is known of it is told then.
#[pyfunction]
fn interrupt(py: Python<'_>) -> bool {
    py.detach(crate::infrastructure::interrupt)
}

/// What `graft` exits with on an error of this code.
#[pyfunction]
fn exit_status(code: &str) -> u8 {
    crate::infrastructure::exit_status(code)
}

/// Called in the child after a fork: whatever this process inherited of the engine is unusable from here on.
#[pyfunction]
fn after_fork_in_child() {
    fork::mark_child();
}

/// Waits at most `timeout` seconds for events of the engine: `(level, target, message, created)` each, level as in `logging`,
/// created in seconds since the epoch. An empty list if none came.
#[pyfunction]
#[pyo3(name = "logs")]
fn take_logs(py: Python<'_>, timeout: f64) -> Vec<(u8, String, String, f64)> {
    py.detach(|| logs::take(convert::seconds(timeout)))
}

/// Whoever waits in `logs`, or will next, comes back at once.
#[pyfunction]
fn logs_wake() {
    logs::wake();
}

/// From now on the engine notes events of this level of `logging` and above, and no others.
#[pyfunction]
fn log_level(level: u8) {
    logs::set_level(level);
}

/// Why some replica could not read, or keep, this msgpack; None if it is one whole value that every replica can.
/// `any_extension` if nobody keeps it.
#[pyfunction]
fn msgpack_trouble(data: &[u8], any_extension: bool) -> Option<String> {
    msgpack::check(data, any_extension).err().map(|trouble| trouble.to_string())
}
