use pyo3::prelude::*;

/// Removes a variable from the environment of Python and of the process, and returns its value.
pub(crate) fn take_variable(py: Python<'_>, name: &str) -> PyResult<Option<String>> {
    py.import("os")?.getattr("environ")?.call_method1("pop", (name, py.None()))?.extract()
}
