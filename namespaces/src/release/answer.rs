//! What the holder answers: a packet that another version of this crate may read too.

use crate::{Error, ErrorKind, Step};
use std::path::Path;

/// Version, outcome, kind, a zero, and an errno; then words.
const HEAD: usize = 8;
const VERSION: u8 = 1;
pub(super) const LONGEST: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Started,
    Already,
    Failed { kind: ErrorKind, errno: Option<i32>, words: String },
}

/// By their place in this list: what is added comes last.
const KINDS: [ErrorKind; 13] = [
    ErrorKind::Os,
    ErrorKind::InvalidConfig,
    ErrorKind::NotFound,
    ErrorKind::PermissionDenied,
    ErrorKind::Unsupported,
    ErrorKind::Busy,
    ErrorKind::LimitReached,
    ErrorKind::Killed,
    ErrorKind::StatusLost,
    ErrorKind::NoSuchProcess,
    ErrorKind::AlreadyReleased,
    ErrorKind::HookFailed,
    ErrorKind::TimedOut,
];

impl Answer {
    pub(super) fn of<T>(released: &Result<T, Error>) -> Self {
        match released {
            Ok(_) => Answer::Started,
            Err(error) => Answer::Failed { kind: error.kind(), errno: error.raw_os_error(), words: error.to_string() },
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (outcome, kind, errno, words) = match self {
            Answer::Started => (0, ErrorKind::Os, None, ""),
            Answer::Already => (1, ErrorKind::AlreadyReleased, None, ""),
            Answer::Failed { kind, errno, words } => (2, *kind, *errno, words.as_str()),
        };
        let kind = KINDS.iter().position(|known| *known == kind).and_then(|at| u8::try_from(at).ok()).unwrap_or(0);
        let mut bytes = vec![VERSION, outcome, kind, 0];
        bytes.extend(errno.unwrap_or(0).to_le_bytes());
        bytes.extend(words.bytes().take(LONGEST - HEAD));
        bytes
    }

    /// Whoever has put a socket there may have written anything.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, words) = bytes.split_at_checked(HEAD)?;
        match *head {
            [VERSION, 0, ..] => Some(Answer::Started),
            [VERSION, 1, ..] => Some(Answer::Already),
            [VERSION, 2, kind, _, a, b, c, d] => {
                let errno = i32::from_le_bytes([a, b, c, d]);
                Some(Answer::Failed {
                    // One that a later version knows.
                    kind: KINDS.get(usize::from(kind)).copied().unwrap_or(ErrorKind::Os),
                    errno: (errno != 0).then_some(errno),
                    // A name that an attacker chose must not reach a terminal as it is.
                    words: String::from_utf8_lossy(words).replace(char::is_control, "?"),
                })
            }
            _ => None,
        }
    }

    pub(super) fn result(self, path: &Path) -> Result<(), Error> {
        match self {
            Answer::Started => Ok(()),
            Answer::Already => {
                let words = "somebody else has released it";
                Err(Error::words(ErrorKind::AlreadyReleased, Step::Release, path, words))
            }
            Answer::Failed { kind, errno, words } => Err(Error::told(kind, Step::Release, errno, words).about(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        for kind in KINDS {
            for errno in [None, Some(libc::ENOENT)] {
                let failed = Answer::Failed { kind, errno, words: "start the program: no".into() };
                assert_eq!(Answer::decode(&failed.encode()), Some(failed));
            }
        }
        for answer in [Answer::Started, Answer::Already] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
        let long = Answer::Failed { kind: ErrorKind::Os, errno: None, words: "x".repeat(5000) };
        assert_eq!(long.encode().len(), LONGEST);
    }

    #[test]
    fn an_error_is_told_in_its_own_words() {
        let met = Error::os(Step::Exec, "execve", libc::ENOENT).about("/bin/nope");
        let answer = Answer::decode(&Answer::of::<()>(&Err(met)).encode()).unwrap();
        let error = answer.result(Path::new("/run/x")).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::NotFound, Some(libc::ENOENT)));
        assert_eq!((error.step(), error.object()), (Step::Release, Some("/run/x".as_ref())));
        let words = "start the program: execve(\"/bin/nope\"): No such file or directory (os error 2)";
        assert_eq!(error.to_string(), format!("release by a path: /run/x: {words}"));
    }

    proptest! {
        #[test]
        fn anything_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let known = bytes.len() >= HEAD && bytes[0] == VERSION && bytes[1] <= 2;
            let answer = Answer::decode(&bytes);
            prop_assert_eq!(answer.is_some(), known);
            if let Some(Answer::Failed { words, .. }) = answer {
                prop_assert!(!words.contains(char::is_control));
            }
        }
    }
}
