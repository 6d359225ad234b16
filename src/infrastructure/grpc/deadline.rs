//! How long a call of a client may take: what its header `grpc-timeout` says.

use std::time::Duration;

use graft_services::error::Refusal;
use tokio::time::Instant;
use tonic::Extensions;
use tonic::codegen::http::HeaderMap;

/// Of a call that says nothing.
pub(super) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Of any call: nobody is waited for longer.
pub(super) const TIMEOUT_MAX: Duration = Duration::from_hours(1);
/// The answer has to be there before the caller gives up: only then does he learn whether something was done.
const WAY_BACK_MAX: Duration = Duration::from_millis(50);

const HEADER: &str = "grpc-timeout";

/// When a call is to be answered; an extension of its request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// Of a call that has just come in.
    pub(super) fn of(headers: &HeaderMap, now: Instant) -> Result<Self, Refusal> {
        let timeout = match headers.get(HEADER) {
            None => TIMEOUT_DEFAULT,
            Some(text) => {
                let parsed = text.to_str().ok().and_then(parse).ok_or_else(|| {
                    Refusal::Invalid(format!(
                        "the header {HEADER} is {text:?}; it must be at most eight digits and one of H, M, S, m, u, n"
                    ))
                })?;
                parsed.min(TIMEOUT_MAX)
            }
        };
        Ok(Self(now + timeout.saturating_sub(WAY_BACK_MAX.min(timeout / 10))))
    }

    /// How much is left to a call.
    pub(super) fn left(extensions: &Extensions) -> Duration {
        let deadline = extensions.get::<Self>();
        deadline.map_or(TIMEOUT_DEFAULT, |deadline| deadline.0.saturating_duration_since(Instant::now()))
    }

    pub(super) fn at(self) -> Instant {
        self.0
    }
}

/// As the gRPC protocol has it.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
        let good =
            [("99999999H", 99_999_999 * 3600 * 1_000_000_000_u128), ("2M", 120_000_000_000), ("3S", 3_000_000_000)];
        for (text, nanos) in good.into_iter().chain([("4m", 4_000_000), ("5u", 5000), ("0n", 0)]) {
            assert_eq!(parse(text).map(|timeout| timeout.as_nanos()), Some(nanos), "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "+1S", "999999999S", "1 S", "1.5S", "é", "1é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_answer_comes_before_the_caller_gives_up() {
        let now = Instant::now();
        let given = |text: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(text) = text {
                headers.insert(HEADER, text.parse().unwrap());
            }
            Deadline::of(&headers, now).map(|deadline| deadline.0 - now)
        };
        assert_eq!(given(None), Ok(Duration::from_millis(9_950)));
        assert_eq!(given(Some("100m")), Ok(Duration::from_millis(90)));
        assert_eq!(given(Some("0n")), Ok(Duration::ZERO));
        assert_eq!(given(Some("99999999H")), Ok(TIMEOUT_MAX.saturating_sub(WAY_BACK_MAX)));
        assert!(matches!(given(Some("soon")), Err(Refusal::Invalid(words)) if words.contains("soon")));
    }
}
