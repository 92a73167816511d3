//! Errors in words, as a person reads them.

use std::error::Error;

/// The error and what it came from, in one line, each said once: many an error
/// names its source in its own text already.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("a file: {source}")]
    struct Says {
        source: std::io::Error,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("db error")]
    struct Hides(#[source] std::io::Error);

    #[test]
    fn every_part_is_said_once() {
        let refused = || std::io::Error::other("not yours");
        assert_eq!(chain(&Says { source: refused() }), "a file: not yours");
        assert_eq!(chain(&Hides(refused())), "db error: not yours");
        assert_eq!(chain(&refused()), "not yours");
    }
}
