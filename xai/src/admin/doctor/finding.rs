//! One thing that was found: how bad it is, what it is, whose fault, and the next command.

use serde_json::{Value, json};

/// How bad it is; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Requests fail, money or secrets are at risk, or something cannot be looked at at all.
    Error,
    /// It will become an error, or works otherwise than it was meant.
    Warning,
    /// Good to know; nothing needs to be done.
    Info,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Where the fault is, so who mends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// How this command was called, or the way to the control plane.
    Connection,
    /// The control plane, or its store.
    ControlPlane,
    /// A node, or its machine.
    Node,
    /// What administrators configured.
    Configuration,
    /// The machine that this command runs on.
    Machine,
}

impl Whose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::ControlPlane => "control plane",
            Self::Node => "node",
            Self::Configuration => "configuration",
            Self::Machine => "machine",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// Which check found it, in one stable word for programs.
    pub(super) check: &'static str,
    /// What it is about: an id, a path, an address.
    pub(super) object: String,
    /// What was found, in one sentence without its full stop.
    pub(super) what: String,
    pub(super) whose: Whose,
    /// The next command, or what to do where no command does it; empty when nothing needs to be done.
    pub(super) next: String,
}

impl Finding {
    /// Something that is only good to know.
    pub(super) fn info(
        check: &'static str,
        object: impl Into<String>,
        what: impl Into<String>,
        whose: Whose,
    ) -> Self {
        Self {
            severity: Severity::Info,
            check,
            object: object.into(),
            what: what.into(),
            whose,
            next: String::new(),
        }
    }

    /// The same, as bad as this, with what to do next.
    pub(super) fn but(self, severity: Severity, next: impl Into<String>) -> Self {
        Self {
            severity,
            next: next.into(),
            ..self
        }
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "severity": self.severity.as_str(), "check": self.check, "object": self.object, "what": self.what,
            "whose": self.whose.as_str(), "next": self.next,
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let severity = self.severity.as_str();
        let mut text = format!(
            "{severity:<8} {} ({}): {}\n",
            self.check, self.object, self.what
        );
        if self.severity != Severity::Info {
            text.push_str(&format!("{:<8} where: {}\n", "", self.whose.as_str()));
        }
        if !self.next.is_empty() {
            text.push_str(&format!("{:<8} next: {}\n", "", self.next));
        }
        text
    }
}
