//! Values of calls: from the command line to msgpack, and from msgpack to what is shown.

use std::fmt::Write;

use bytes::Bytes;
use rmpv::Value;
use serde_json::Value as Json;

use super::failure::Failure;
use crate::infrastructure::runtime::certificates::date;

/// The arguments of a typed call, as they were written.
///
/// `KEY:=JSON` is that JSON. `KEY=VALUE` is JSON too, if it reads as such and can be sent exactly, else text. A guess that the
/// machine does not take is [made text](Self::as_text): it names the argument when it refuses, before anything is replicated.
pub(super) struct Arguments<'a> {
    name: &'a str,
    all: Vec<Argument<'a>>,
}

struct Argument<'a> {
    key: &'a str,
    text: &'a str,
    value: Value,
    is_guess: bool,
}

impl<'a> Arguments<'a> {
    pub(super) fn parse(name: &'a str, arguments: &'a [String]) -> Result<Self, Failure> {
        let mut all: Vec<Argument<'_>> = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let found = Argument::parse(name, argument)?;
            if all.iter().any(|before| before.key == found.key) {
                return Err(Failure::usage(format!("{} is given twice; {name} takes it once", found.key)));
            }
            all.push(found);
        }
        Ok(Self { name, all })
    }

    /// Has the first guess that this refusal complains about be text. Whether there was one.
    pub(super) fn as_text(&mut self, refusal: &str) -> bool {
        // Such as: Expected `str`, got `int` - at `$.who`
        let is_meant = |argument: &&mut Argument<'_>| {
            argument.is_guess && refusal.ends_with(&format!(" - at `$.{}`", argument.key))
        };
        let Some(argument) = self.all.iter_mut().find(is_meant) else { return false };
        argument.value = Value::from(argument.text);
        argument.is_guess = false;
        true
    }

    /// As replicas take it: `[name, {parameter: value}]`.
    pub(super) fn body(&self) -> Result<Bytes, Failure> {
        let pairs = self.all.iter().map(|argument| (Value::from(argument.key), argument.value.clone()));
        let whole = Value::Array(vec![Value::from(self.name), Value::Map(pairs.collect())]);
        let mut body = Vec::new();
        rmpv::encode::write_value(&mut body, &whole)
            .map_err(|error| Failure::usage(format!("the arguments of {} cannot be sent: {error}", self.name)))?;
        Ok(body.into())
    }
}

impl<'a> Argument<'a> {
    fn parse(name: &str, argument: &'a str) -> Result<Self, Failure> {
        let (key, text) = argument.split_once('=').filter(|(key, _)| !matches!(*key, "" | ":")).ok_or_else(|| {
            Failure::usage(format!("{argument:?} is no KEY=VALUE; an argument of {name} is written as amount=5"))
        })?;
        let off = |why: String| Failure::usage(format!("{argument:?}: {why}"));
        let json = serde_json::from_str::<Json>(text);
        if let Some(key) = key.strip_suffix(':') {
            let json = json.map_err(|error| off(format!("what follows := is no JSON: {error}")))?;
            inexact(text).map_or(Ok(()), |number| Err(off(too_long(number))))?;
            return Ok(Self { key, text, value: of_json(&json), is_guess: false });
        }
        let value = match (json, inexact(text)) {
            (Ok(Json::Array(_) | Json::Object(_)), Some(number)) => return Err(off(too_long(number))),
            (Ok(json), None) => of_json(&json),
            _ => return Ok(Self { key, text, value: Value::from(text), is_guess: false }),
        };
        let is_guess = !matches!(value, Value::String(_));
        Ok(Self { key, text, value, is_guess })
    }
}

fn too_long(number: &str) -> String {
    format!("{number} does not fit into 64 bits exactly; send it as text, in quotes: \"{number}\"")
}

/// The first number in this JSON that would be another one when it is sent.
fn inexact(json: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
    let mut rest = json;
    while let Some(at) = rest.find(|c: char| c == '"' || c.is_ascii_digit() || c == '-') {
        rest = &rest[at..];
        if rest.starts_with('"') {
            rest = after_text(rest);
            continue;
        }
        let (number, more) = rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()));
        let is_integer = number.parse::<u64>().is_ok() || number.parse::<i64>().is_ok();
        let is_exact = || number.parse::<f64>().is_ok_and(|sent| digits(number) == digits(&format!("{sent:e}")));
        if !is_integer && !is_exact() {
            return Some(number);
        }
        rest = more;
    }
    None
}

/// What comes after the text in quotes that this begins with.
fn after_text(json: &str) -> &str {
    let mut is_escaped = false;
    let end = json.char_indices().skip(1).find(|(_, c)| {
        let is_end = *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        is_end
    });
    end.map_or("", |(at, _)| &json[at + 1..])
}

/// The digits that count, and the power of ten that the last of them has.
fn digits(number: &str) -> (String, i64) {
    let lower = number.to_ascii_lowercase();
    let (mantissa, power) = lower.split_once('e').unwrap_or((&lower, "0"));
    let (whole, fraction) = mantissa.trim_start_matches('-').split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{}{fraction}", whole.trim_start_matches('-'));
    let kept = all.trim_end_matches('0');
    let dropped = all.len() - kept.len();
    let power = power.parse::<i64>().unwrap_or(i64::MAX / 2);
    let shown = kept.trim_start_matches('0').to_owned();
    if shown.is_empty() {
        return (shown, 0);
    }
    let width = |count: usize| i64::try_from(count).unwrap_or(i64::MAX / 4);
    (shown, power.saturating_sub(width(fraction.len())).saturating_add(width(dropped)))
}

fn of_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(yes) => Value::from(*yes),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(all) => Value::Array(all.iter().map(of_json).collect()),
        Json::Object(all) => {
            Value::Map(all.iter().map(|(key, value)| (Value::from(key.as_str()), of_json(value))).collect())
        }
    }
}

/// What a machine answered. Bytes are shown in hexadecimal, keys as text; what is no msgpack is taken for bytes.
pub(super) fn answer(reply: &[u8]) -> Json {
    let mut rest = reply;
    match rmpv::decode::read_value(&mut rest) {
        Ok(value) if rest.is_empty() => to_json(&value),
        _ => Json::from(hex(reply)),
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Boolean(yes) => Json::from(*yes),
        Value::Integer(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Json::from(number),
            (None, number) => Json::from(number),
        },
        Value::F32(number) => float(f64::from(*number)),
        Value::F64(number) => float(*number),
        Value::String(text) => Json::from(text.as_str().map_or_else(|| hex(text.as_bytes()), str::to_owned)),
        Value::Binary(bytes) => Json::from(hex(bytes)),
        Value::Array(all) => all.iter().map(to_json).collect(),
        Value::Map(all) => all.iter().map(|(key, value)| (key_of(key), to_json(value))).collect(),
        Value::Ext(kind, bytes) => serde_json::json!({ "ext": kind, "bytes": hex(bytes) }),
    }
}

/// JSON has no infinities: they are shown as text.
fn float(number: f64) -> Json {
    if number.is_finite() { Json::from(number) } else { Json::from(number.to_string()) }
}

fn key_of(key: &Value) -> String {
    match to_json(key) {
        Json::String(text) => text,
        other => other.to_string(),
    }
}

/// A stamp of the log, in nanoseconds since the epoch, as people write it.
pub(super) fn moment(nanoseconds: u64) -> String {
    date(i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(i64::MAX))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[path = "tests/values.rs"]
mod tests;
