use rmpv::Value;

use super::{Arguments, answer};

fn sent(arguments: &[&str], refusals: &[&str]) -> Result<Value, String> {
    let owned: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let mut parsed = Arguments::parse("put", &owned).map_err(|failure| failure.what)?;
    for refusal in refusals {
        assert!(parsed.as_text(refusal), "{refusal}");
    }
    let body = parsed.body().map_err(|failure| failure.what)?;
    let whole = rmpv::decode::read_value(&mut &body[..]).map_err(|error| error.to_string())?;
    Ok(whole[1].clone())
}

fn one(argument: &str) -> Value {
    let sent = sent(&[argument], &[]).expect(argument);
    sent.as_map().expect("arguments are a map")[0].1.clone()
}

#[test]
fn a_value_is_json_if_it_can_be_sent_exactly_else_text() {
    for (argument, value) in [
        ("a=5", Value::from(5)),
        ("a=-5", Value::from(-5)),
        ("a=18446744073709551615", Value::from(u64::MAX)),
        ("a=18446744073709551616", Value::from("18446744073709551616")),
        ("a=-9223372036854775808", Value::from(i64::MIN)),
        ("a=-9223372036854775809", Value::from("-9223372036854775809")),
        ("a=0.5", Value::from(0.5)),
        ("a=1.10", Value::from(1.1)),
        ("a=100e-2", Value::from(1.0)),
        ("a=0.30000000000000004", Value::from(0.300_000_000_000_000_04)),
        ("a=0.1234567890123456789", Value::from("0.1234567890123456789")),
        ("a=1e999", Value::from("1e999")),
        ("a=true", Value::from(true)),
        ("a=null", Value::Nil),
        ("a=\"5\"", Value::from("5")),
        ("a=007", Value::from("007")),
        ("a=b=c", Value::from("b=c")),
        ("a=", Value::from("")),
        ("a:=5", Value::from(5)),
        (
            "a=[1,\"18446744073709551616 \\\" 1e999\"]",
            Value::Array(vec![1.into(), "18446744073709551616 \" 1e999".into()]),
        ),
    ] {
        assert_eq!(one(argument), value, "{argument}");
    }
}

#[test]
fn what_is_neither_exact_nor_unambiguous_is_an_error() {
    for (arguments, what) in [
        (vec!["a=1", "a=2"], "a is given twice"),
        (vec!["a=1", "a:=2"], "a is given twice"),
        (vec!["=1"], "no KEY=VALUE"),
        (vec![":=1"], "no KEY=VALUE"),
        (vec!["a"], "no KEY=VALUE"),
        (vec!["a:=text"], "no JSON"),
        (vec!["a:=18446744073709551616"], "64 bits"),
        (vec!["a=[18446744073709551616]"], "64 bits"),
        (vec!["a={\"b\":0.1234567890123456789}"], "64 bits"),
    ] {
        let words = sent(&arguments, &[]).expect_err("it is refused");
        assert!(words.contains(what), "{arguments:?}: {words}");
    }
}

#[test]
fn a_guess_that_is_refused_is_text() {
    let refusal = "Bank.put(): Expected `str`, got `int` - at `$.a`";
    let both = sent(&["a=1.10", "b=2"], &[refusal]).expect("both are sent");
    assert_eq!(both, Value::Map(vec![("a".into(), "1.10".into()), ("b".into(), 2.into())]));
    let owned = ["a:=1".to_owned(), "b=text".to_owned(), "c=\"1\"".to_owned()];
    let mut parsed = Arguments::parse("put", &owned).expect("all are well");
    for name in ["a", "b", "c"] {
        assert!(!parsed.as_text(&refusal.replace("$.a", &format!("$.{name}"))), "{name} was no guess");
    }
}

#[test]
fn what_json_cannot_say_is_text() {
    let mut reply = Vec::new();
    rmpv::encode::write_value(&mut reply, &Value::from(f64::INFINITY)).expect("a vector takes it");
    assert_eq!(answer(&reply), serde_json::json!("inf"));
}
