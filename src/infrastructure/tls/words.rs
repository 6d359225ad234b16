//! What went wrong between two sides, and what to do about it.

use std::error::Error as _;
use std::io;

use graft_services::identity::Distrust;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::certificate::date;

/// Which side this one is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Accepting,
    Dialling,
}

/// The error of a handshake.
pub(super) fn words(error: &io::Error, side: Side) -> Distrust {
    if let Some(tls) = tls_error(error) {
        return of(tls, side);
    }
    Distrust(match side {
        Side::Accepting => format!("the other side broke off before it proved who it is: {error}"),
        Side::Dialling => {
            format!("the connection ended before the other side proved who it is ({error}): does it speak TLS?")
        }
    })
}

/// The same for an error of an established connection; what is not of TLS is left as it is.
pub(super) fn told(error: io::Error, side: Side) -> io::Error {
    match tls_error(&error).map(|tls| of(tls, side)) {
        Some(distrust) => io::Error::new(error.kind(), distrust),
        None => error,
    }
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn of(error: &Error, side: Side) -> Distrust {
    let words = match error {
        Error::InvalidCertificate(bad) => return certificate(bad),
        Error::AlertReceived(alert) => alerted(*alert),
        Error::NoCertificatesPresented => {
            "the other side showed no certificate: it has to be started with `tls=`, and a \
             certificate of this cluster"
                .to_owned()
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::MessageTooLarge) => match side {
            Side::Accepting => "the other side does not speak TLS, and this member takes nothing else: give it `tls=`",
            Side::Dialling => "the other side does not speak TLS: start it with `tls=`, or leave `tls=` out here",
        }
        .to_owned(),
        Error::PeerIncompatible(what) => {
            format!(
                "there is no way to speak TLS 1.3, which is the only version spoken here, with the other side: {what:?}"
            )
        }
        other => format!("TLS failed: {other}"),
    };
    Distrust(words)
}

fn certificate(bad: &CertificateError) -> Distrust {
    let at = |time: &rustls::pki_types::UnixTime| date(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    Distrust(match bad {
        CertificateError::Other(other) => {
            if let Some(distrust) = other.0.downcast_ref::<Distrust>() {
                return distrust.clone();
            }
            format!(
                "the other side's certificate is refused: {}",
                other.source().map_or(String::new(), ToString::to_string)
            )
        }
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the other side's certificate expired at {} (it is {} here): put a new one in its place",
            at(not_after),
            at(time)
        ),
        CertificateError::Expired => "the other side's certificate has expired: put a new one in its place".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the other side's certificate is not valid before {}, and it is {} here: are both clocks right?",
            at(not_before),
            at(time)
        ),
        CertificateError::NotValidYet => {
            "the other side's certificate is not valid yet: are the clocks of both machines right?".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the other side's certificate is of an authority that this side does not know: make both with the same \
             authority, or add the other's certificate to the file `ca`"
                .to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the other side's certificate is not for this purpose: a client's certificate cannot be a member's"
                .to_owned()
        }
        other => format!("the other side's certificate is refused: {other}"),
    })
}

/// What the other side found wrong, as far as TLS has a word for it.
fn alerted(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "it wants a certificate: give `tls=` with one of this cluster"
        }
        // Two authorities of one cluster have one name: the signature is wrong then.
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it does not know the authority of this side's certificate: make both with the same"
        }
        AlertDescription::CertificateExpired => {
            "this side's certificate has expired, or is not valid yet by its clock: put a new one in its place, and \
             compare the clocks"
        }
        AlertDescription::CertificateUnknown
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => {
            "it refuses this side's certificate: is it of the same cluster? The other side's log says why"
        }
        AlertDescription::ProtocolVersion => "it does not speak TLS 1.3",
        _ => return format!("the other side broke off: {alert:?}; its log says why"),
    };
    format!("the other side refused the connection: {why}")
}
