//! What an error of etcd says: whether the call was done, and what to do about it.

use std::error::Error as _;

use etcd_client::Error;
use proxyxai_core::causes::with_causes;
use tonic::{Code, Status};

use super::rows::ANSWER_BYTES;

/// What became of a call that failed.
#[derive(Debug)]
pub(super) enum Sent {
    /// Not done: no member could be asked.
    Not(String),
    /// Perhaps done.
    Perhaps(String),
    /// Not done: any member would say so.
    Refused(Refusal),
}

/// Why etcd refuses a call.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The revision is compacted, or lies ahead.
    Gone(String),
    /// The answer is longer than we take; at least so many bytes.
    Large(usize),
    /// Anything else.
    Other(String),
}

impl Refusal {
    pub(super) fn text(self) -> String {
        match self {
            Self::Gone(text) | Self::Other(text) => text,
            Self::Large(bytes) => format!("an answer of {bytes} bytes is too long"),
        }
    }
}

/// What to do about a failure, by etcd's words for it.
pub(super) fn advice(what: &str) -> &'static str {
    let says = |words: &str| what.contains(words);
    if says("space exceeded") {
        "etcd is full: compact it, defragment each member, then clear its alarm (`etcdctl alarm disarm`)"
    } else if says("authentication") || says("permission") || says("user name") || says("token") {
        "check the user and password for etcd, and that the user may write below the prefix"
    } else if says("ertificate") || says("tls") {
        "check the certificate files and the names in etcd's certificates"
    } else if says("etcd_allow_old_version") {
        "upgrade it, or take the risk with that setting"
    } else if says("no endpoint") {
        "name at least one member of etcd"
    } else if says("no leader") || says("timed out") || says("no answer") {
        "see whether most members of etcd run and reach each other"
    } else {
        "see whether etcd runs and can be reached at this address"
    }
}

/// What an error says about whether the call was done.
pub(super) fn judge(error: &Error) -> Sent {
    let text = chain(error);
    let status = match error {
        Error::GRpcStatus(status) => status,
        Error::TransportError(_) | Error::IoError(_) => return Sent::Not(text),
        Error::WatchError(_) | Error::ElectError(_) => return Sent::Perhaps(text),
        Error::InvalidArgs(_)
        | Error::InvalidUri(_)
        | Error::Utf8Error(_)
        | Error::InvalidMetadataValue(_)
        | Error::EndpointError(_)
        // The lease is gone.
        | Error::LeaseKeepAliveError(_)
        | Error::EndpointsNotManaged
        | Error::Internal(_) => return Sent::Refused(Refusal::Other(text)),
    };
    let message = status.message();
    let gone = message.contains("has been compacted") || message.contains("future revision");
    match status.code() {
        Code::OutOfRange if gone => Sent::Refused(Refusal::Gone(text)),
        Code::OutOfRange if message.contains("too large") => {
            Sent::Refused(Refusal::Large(ANSWER_BYTES))
        }
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => Sent::Refused(Refusal::Other(text)),
        // Asked of a member that knows it has no leader, nothing is proposed.
        Code::Unavailable if message.contains("no leader") || never_connected(status) => {
            Sent::Not(text)
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Sent::Perhaps(text),
    }
}

fn never_connected(status: &Status) -> bool {
    let mut causes = std::iter::successors(status.source(), |cause| (**cause).source());
    causes.any(|cause| cause.is::<tonic::ConnectError>())
}

/// The words of an error and of what caused it.
pub(super) fn chain(error: &Error) -> String {
    let Error::GRpcStatus(status) = error else {
        return error.to_string();
    };
    with_causes(status.message().to_owned(), status.source())
}

#[cfg(test)]
mod tests {
    use super::{Code, Error, Refusal, Sent, Status, advice, judge};

    #[test]
    fn errors_tell_whether_it_was_done() {
        let check = |code: Code, message: &str, wanted: &str| {
            let sent = judge(&Error::GRpcStatus(Status::new(code, message)));
            let found = match sent {
                Sent::Not(_) => "not",
                Sent::Perhaps(_) => "perhaps",
                Sent::Refused(Refusal::Gone(_)) => "gone",
                Sent::Refused(Refusal::Large(_)) => "large",
                Sent::Refused(Refusal::Other(_)) => "refused",
            };
            assert_eq!(found, wanted, "{code:?} {message}");
        };
        check(Code::Unavailable, "etcdserver: no leader", "not");
        check(
            Code::Unavailable,
            "etcdserver: request timed out",
            "perhaps",
        );
        check(Code::Unavailable, "etcdserver: leader changed", "perhaps");
        check(Code::Unknown, "h2 protocol error: broken pipe", "perhaps");
        check(Code::Cancelled, "operation was canceled", "perhaps");
        check(
            Code::ResourceExhausted,
            "etcdserver: mvcc: database space exceeded",
            "refused",
        );
        check(
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
            "gone",
        );
        check(
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
            "gone",
        );
        check(
            Code::OutOfRange,
            "Error, decoded message length too large: found 5 bytes",
            "large",
        );
        check(
            Code::InvalidArgument,
            "etcdserver: duplicate key given in txn request",
            "refused",
        );
    }

    #[test]
    fn advice_names_what_helps() {
        assert!(advice("etcdserver: mvcc: database space exceeded").contains("disarm"));
        assert!(advice("tcp connect error").contains("reached"));
        assert!(advice("etcdserver: no leader").contains("most members"));
    }
}
