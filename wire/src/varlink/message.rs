//! The new door's messages as bytes: JSON objects, each ended by a NUL.
//!
//! Why not a crate: `varlink` 13 brings its own blocking server with threads, and `zlink` needs an
//! asynchronous runtime and a newer compiler than ours. The protocol is an object, a NUL, and four
//! optional flags; with serde_json what is left is this file.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What ends a message.
pub const END: u8 = 0;

/// The interface of the protocol itself.
pub const SERVICE: &str = "org.varlink.service";

/// A call of a client.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Call {
    /// Interface and method, with a dot between.
    pub method: String,
    /// By name.
    #[serde(default)]
    pub parameters: Option<Map<String, Value>>,
    /// The client wants no reply.
    #[serde(default)]
    pub oneway: bool,
    /// The client takes more than one reply.
    #[serde(default)]
    pub more: bool,
    /// The client wants to speak another protocol after this call.
    #[serde(default)]
    pub upgrade: bool,
}

impl Call {
    /// Reads a message, its NUL not included.
    ///
    /// # Errors
    /// It is no call.
    pub fn decode(message: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(message)
    }

    /// The interface and the method.
    #[must_use]
    pub fn name(&self) -> (&str, &str) {
        self.method.rsplit_once('.').unwrap_or(("", &self.method))
    }
}

/// A reply to a client.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// The only one.
    Last(Value),
    /// An error, by its full name, with its parameters.
    Error(String, Value),
}

impl Response {
    /// An error of the protocol's own interface, which names one thing.
    #[must_use]
    pub fn service_error(error: &str, key: &str, name: &str) -> Self {
        Self::Error(format!("{SERVICE}.{error}"), json!({ key: name }))
    }

    /// Appends the message and its NUL.
    pub fn encode(self, output: &mut Vec<u8>) {
        let value = match self {
            Self::Last(parameters) => json!({ "parameters": parameters }),
            Self::Error(error, parameters) => json!({ "error": error, "parameters": parameters }),
        };
        output.extend_from_slice(value.to_string().as_bytes());
        output.push(END);
    }
}

/// Appends a reply whose parameters are JSON already.
pub fn put_json(parameters: &str, continues: bool, output: &mut Vec<u8>) {
    let continues = if continues { ",\"continues\":true" } else { "" };
    output.extend_from_slice(format!("{{\"parameters\":{parameters}{continues}}}").as_bytes());
    output.push(END);
}

/// The parameters of a call, taken out one by one, so that an error can name the one that is wrong.
#[derive(Debug)]
pub struct Parameters(Map<String, Value>);

/// The parameter with this name is missing, unknown, or of another type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidParameter(pub String);

type Taken<T> = Result<T, InvalidParameter>;

impl Parameters {
    /// Takes all of them.
    #[must_use]
    pub fn new(parameters: Map<String, Value>) -> Self {
        Self(parameters)
    }

    /// A parameter that may be left out, or null.
    fn optional(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    fn required(&mut self, name: &str) -> Taken<Value> {
        self.optional(name).ok_or_else(|| InvalidParameter(name.to_owned()))
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// It is not there, or no text.
    pub fn text(&mut self, name: &str) -> Taken<String> {
        as_text(name, self.required(name)?)
    }

    /// A text that may be left out.
    ///
    /// # Errors
    /// It is no text.
    pub fn optional_text(&mut self, name: &str) -> Taken<Option<String>> {
        self.optional(name).map(|value| as_text(name, value)).transpose()
    }

    /// A flag; one that is left out is not set.
    ///
    /// # Errors
    /// It is no flag.
    pub fn flag(&mut self, name: &str) -> Taken<bool> {
        match self.optional(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(InvalidParameter(name.to_owned())),
        }
    }

    /// A number that fits.
    ///
    /// # Errors
    /// It is not there, no number, or does not fit.
    pub fn number<T: TryFrom<i64>>(&mut self, name: &str) -> Taken<T> {
        let number = self.required(name)?.as_i64().and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| InvalidParameter(name.to_owned()))
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// Something is; it is named.
    pub fn end(&self) -> Taken<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(InvalidParameter(name.clone())),
        }
    }
}

fn as_text(name: &str, value: Value) -> Taken<String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(InvalidParameter(name.to_owned()))
        }
    }
}
