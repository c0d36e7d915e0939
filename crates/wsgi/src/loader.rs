//! Finds the application: `module:attribute`, `module` alone, or `module:factory(arguments)`.
//!
//! The text is read in the master, so that a slip of the pen ends the command at once. The module is imported in the
//! worker, so that each worker has code of its own and a reload sees what changed. [`paste`] is for `--paste`.

pub(crate) mod paste;

use std::path::PathBuf;

use pyo3::{
    exceptions::{PyAttributeError, PyModuleNotFoundError},
    prelude::*,
    types::{PyDict, PyString, PyTuple},
};

use crate::{forked_process::guarded, refusal::Refusal, settings::Flags};

/// What APP names. Nothing is imported yet.
pub(crate) struct Target {
    text: String,
    module: String,
    object: Object,
}

enum Object {
    /// `application`, else `app`.
    Usual,
    /// An attribute, or an attribute of an attribute.
    Attribute(Vec<String>),
    /// What a call returns.
    Factory { path: Vec<String>, arguments: Py<PyTuple>, keywords: Py<PyDict> },
}

impl Target {
    pub(crate) fn of(py: Python<'_>, flags: &Flags) -> Result<Self, Refusal> {
        match &flags.source.paste {
            Some(file) => paste::target(py, file, &flags.source.paste_global),
            None if flags.app.is_none() => Err(Refusal::Usage(
                "there is no application to serve: say APP as module:attribute, or wsgi_app in a config file; \
                 see --help"
                    .into(),
            )),
            None => Self::read(py, flags.name(), flags.source.factory),
        }
    }

    fn read(py: Python<'_>, text: &str, is_factory: bool) -> Result<Self, Refusal> {
        let (module, object) = match text.split_once(':') {
            None => (text, Some(Object::Usual)),
            // Whatever Python dislikes about the expression, the sentence below says what it likes.
            Some((module, expression)) => (module, Object::read(py, expression).unwrap_or_default()),
        };
        let object = match object {
            Some(Object::Attribute(path)) if is_factory => {
                let (arguments, keywords) = (PyTuple::empty(py).unbind(), PyDict::new(py).unbind());
                Some(Object::Factory { path, arguments, keywords })
            }
            Some(_) if is_factory => {
                return Err(Refusal::Usage(format!(
                    "--factory calls what APP names, as in module:create_app; '{text}' names no function"
                )));
            }
            object => object,
        };
        match object {
            Some(object) if !module.is_empty() => {
                Ok(Self { text: text.to_owned(), module: module.to_owned(), object })
            }
            _ => Err(Refusal::Usage(format!(
                "'{text}' names no application: say module, module:attribute or module:factory(arguments), \
                 where arguments are literals such as 1, 'text' or debug=True"
            ))),
        }
    }

    /// Imports the module, looking into `folders` first, the last of them before all, and gets the application from it.
    pub(crate) fn load(&self, py: Python<'_>, folders: &[PathBuf]) -> Result<Py<PyAny>, Refusal> {
        let module = self.import(py, folders)?;
        let app = match &self.object {
            Object::Usual => self.usual(&module)?,
            Object::Attribute(path) => self.follow(module, path)?,
            Object::Factory { path, arguments, keywords } => {
                let factory = self.follow(module, path)?;
                let call = || factory.call(arguments.bind(py), Some(keywords.bind(py)));
                let made = guarded(py, "the application's factory", call);
                made.map_err(|error| {
                    Refusal::raised(py, &format!("{} makes no application", self.text), &error)
                })?
            }
        };
        if app.is_callable() {
            return Ok(app.unbind());
        }
        let kind = app.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string());
        Err(Refusal::Usage(format!(
            "{} is no application: it gives a {kind}, which cannot be called",
            self.text
        )))
    }

    fn import<'py>(&self, py: Python<'py>, folders: &[PathBuf]) -> Result<Bound<'py, PyAny>, Refusal> {
        let import = || extend_path(py, folders).and_then(|()| py.import(&*self.module));
        let imported = guarded(py, "the application's module", import);
        imported.map(Bound::into_any).map_err(|error| {
            if self.is_missing(py, &error) {
                return Refusal::App(self.nowhere(folders));
            }
            Refusal::raised(py, &format!("{} cannot be imported", self.module), &error)
        })
    }

    /// Whether it is the module itself, or a package it lies in, that was not found, and not one that it imports.
    fn is_missing(&self, py: Python<'_>, error: &PyErr) -> bool {
        let name = error.value(py).getattr("name").and_then(|name| name.extract::<String>());
        error.is_instance_of::<PyModuleNotFoundError>(py)
            && name.is_ok_and(|name| self.module == name || self.module.starts_with(&format!("{name}.")))
    }

    fn nowhere(&self, folders: &[PathBuf]) -> String {
        let folders: Vec<_> = folders.iter().rev().map(|folder| folder.display().to_string()).collect();
        let hint = match self.module.strip_suffix(".py") {
            Some(module) => format!("; for a file, say {}", module.replace('/', ".")),
            None => String::new(),
        };
        let (module, folders) = (&self.module, folders.join(", "));
        format!("there is no module '{module}' in {folders}, nor elsewhere on Python's path{hint}")
    }

    fn usual<'py>(&self, module: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>, Refusal> {
        for name in ["application", "app"] {
            if let Some(app) = self.attribute(module, name)? {
                return Ok(app);
            }
        }
        let name = &self.module;
        Err(Refusal::Usage(format!(
            "{name} has neither 'application' nor 'app': name another as {name}:NAME"
        )))
    }

    fn follow<'py>(&self, from: Bound<'py, PyAny>, path: &[String]) -> Result<Bound<'py, PyAny>, Refusal> {
        let (mut object, mut place) = (from, self.module.clone());
        for (name, joint) in path.iter().zip(std::iter::once(':').chain(std::iter::repeat('.'))) {
            object = self.attribute(&object, name)?.ok_or_else(|| {
                Refusal::Usage(format!("{place} has no attribute '{name}'{}", near_matches(&object, name)))
            })?;
            place.push(joint);
            place.push_str(name);
        }
        Ok(object)
    }

    /// An attribute that is there. What a module's own `__getattr__` raises is the application's failure.
    fn attribute<'py>(
        &self,
        of: &Bound<'py, PyAny>,
        name: &str,
    ) -> Result<Option<Bound<'py, PyAny>>, Refusal> {
        let py = of.py();
        match of.getattr(name) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_instance_of::<PyAttributeError>(py) => Ok(None),
            Err(error) => Err(Refusal::raised(py, &format!("{} cannot be looked up", self.text), &error)),
        }
    }
}

impl Object {
    fn read(py: Python<'_>, expression: &str) -> PyResult<Option<Self>> {
        if is_plain(py, expression)? {
            return Ok(Some(Self::Attribute(expression.split('.').map(str::to_owned).collect())));
        }
        let ast = py.import("ast")?; // half a megabyte, which the master would keep
        let node = ast.call_method1("parse", (expression, "", "eval"))?.getattr("body")?;
        if !is_a(&node, "Call")? {
            return Ok(dotted(node)?.map(Self::Attribute));
        }
        let literal = |node: Bound<'_, PyAny>| ast.call_method1("literal_eval", (node,)).map(Bound::unbind);
        let mut arguments = Vec::new();
        for argument in node.getattr("args")?.try_iter()? {
            arguments.push(literal(argument?)?);
        }
        let keywords = PyDict::new(py);
        for keyword in node.getattr("keywords")?.try_iter()? {
            let keyword = keyword?;
            let name: String = keyword.getattr("arg")?.extract()?;
            keywords.set_item(name, literal(keyword.getattr("value")?)?)?;
        }
        let arguments = PyTuple::new(py, arguments)?.unbind();
        let path = dotted(node.getattr("func")?)?;
        Ok(path.map(|path| Self::Factory { path, arguments, keywords: keywords.unbind() }))
    }
}

/// Whether it is nothing but names and dots.
fn is_plain(py: Python<'_>, expression: &str) -> PyResult<bool> {
    for name in expression.split('.') {
        if !PyString::new(py, name).call_method0("isidentifier")?.is_truthy()? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The names of `a.b.c`, if the expression is like that.
fn dotted(mut node: Bound<'_, PyAny>) -> PyResult<Option<Vec<String>>> {
    let mut names = Vec::new();
    while is_a(&node, "Attribute")? {
        names.insert(0, node.getattr("attr")?.extract()?);
        node = node.getattr("value")?;
    }
    if !is_a(&node, "Name")? {
        return Ok(None);
    }
    names.insert(0, node.getattr("id")?.extract()?);
    Ok(Some(names))
}

fn is_a(node: &Bound<'_, PyAny>, kind: &str) -> PyResult<bool> {
    Ok(node.get_type().name()? == kind)
}

pub(crate) fn extend_path(py: Python<'_>, folders: &[PathBuf]) -> PyResult<()> {
    let path = py.import("sys")?.getattr("path")?;
    for folder in folders {
        let folder = folder.as_os_str();
        if !path.contains(folder)? {
            path.call_method1("insert", (0, folder))?;
        }
    }
    Ok(())
}

/// The same in the master, for config files and their hooks. As root, only directories and modules that nobody else can change can
/// be imported. Why others cannot, in sentences.
pub(crate) fn extend_path_of_master(py: Python<'_>, folders: &[PathBuf]) -> PyResult<Vec<String>> {
    if !rustix::process::geteuid().is_root() {
        return extend_path(py, folders).map(|()| Vec::new());
    }
    py.import("mylittlewebserver._imports")?.call_method1("extend_path", (folders,))?.extract()
}

/// In a worker, or wherever else the application is about to be loaded: from here on everything can be imported.
pub(crate) fn end_imports_of_master(py: Python<'_>) -> PyResult<()> {
    let modules = py.import("sys")?.getattr("modules")?;
    let module = modules.call_method1("get", ("mylittlewebserver._imports",))?;
    if module.is_none() { Ok(()) } else { module.call_method0("remove_guard").map(drop) }
}

fn near_matches(object: &Bound<'_, PyAny>, name: &str) -> String {
    let near = || -> PyResult<Vec<String>> {
        let difflib = object.py().import("difflib")?;
        difflib.call_method1("get_close_matches", (name, object.dir()?))?.extract()
    };
    // A hint that cannot be had is no news.
    match near().unwrap_or_default() {
        near if near.is_empty() => String::new(),
        near => format!("; did you mean '{}'?", near.join("' or '")),
    }
}
