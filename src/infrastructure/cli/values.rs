//! Values of calls: from the command line to msgpack, and from msgpack to what is shown.

use std::fmt::Write;

use bytes::Bytes;
use rmpv::Value;
use serde_json::Value as Json;

use super::failure::Failure;

/// A typed call as replicas take it: `[name, {parameter: value}]`.
pub(super) fn call(name: &str, arguments: &[String]) -> Result<Bytes, Failure> {
    let pair = |argument: &String| {
        let (key, value) = argument.split_once('=').ok_or_else(|| {
            Failure::usage(format!("{argument:?} is no KEY=VALUE; an argument of {name} is written as amount=5"))
        })?;
        Ok((Value::from(key), of_json(&serde_json::from_str(value).unwrap_or_else(|_| Json::from(value)))))
    };
    let arguments = arguments.iter().map(pair).collect::<Result<Vec<_>, Failure>>()?;
    let mut body = Vec::new();
    let whole = Value::Array(vec![Value::from(name), Value::Map(arguments)]);
    rmpv::encode::write_value(&mut body, &whole)
        .map_err(|error| Failure::usage(format!("the arguments of {name} cannot be sent: {error}")))?;
    Ok(body.into())
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
        Value::F32(number) => Json::from(*number),
        Value::F64(number) => Json::from(*number),
        Value::String(text) => Json::from(text.as_str().map_or_else(|| hex(text.as_bytes()), str::to_owned)),
        Value::Binary(bytes) => Json::from(hex(bytes)),
        Value::Array(all) => all.iter().map(to_json).collect(),
        Value::Map(all) => all.iter().map(|(key, value)| (key_of(key), to_json(value))).collect(),
        Value::Ext(kind, bytes) => serde_json::json!({ "ext": kind, "bytes": hex(bytes) }),
    }
}

fn key_of(key: &Value) -> String {
    match to_json(key) {
        Json::String(text) => text,
        other => other.to_string(),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
