//! One line of the Prometheus text format, read without allocating.
//!
//! A crate exists for the whole page; it builds a map for every sample of
//! every series and passes over what it can't read. Of a page of megabytes we
//! want a few series, and to say which line was wrong.

/// One sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The series' name.
    pub name: &'a str,
    labels: &'a str,
    /// Its value; any float, NaN included.
    pub value: f64,
}

/// Reads a line. `Ok(None)` for blank lines and comments.
///
/// # Errors
/// What is wrong with the line, in a few words.
pub fn line(text: &str) -> Result<Option<Sample<'_>>, &'static str> {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let end = text.find(|c: char| c == '{' || c.is_ascii_whitespace()).ok_or("no value")?;
    let (name, rest) = text.split_at(end);
    let mut bytes = name.bytes();
    let first = bytes.next().ok_or("no name")?;
    if !(first.is_ascii_alphabetic() || first == b'_' || first == b':')
        || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
    {
        return Err("not a metric name");
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        None => ("", rest),
        Some(inner) => {
            let close = closing_brace(inner).ok_or("labels without end")?;
            (&inner[..close], &inner[close + 1..])
        }
    };
    // After the value a timestamp may follow, or an exemplar.
    let value = rest.split_ascii_whitespace().next().ok_or("no value")?;
    let value = value.parse::<f64>().map_err(|_| "the value is not a number")?;
    Ok(Some(Sample { name, labels, value }))
}

/// Where the label set ends: the first brace outside of quotes.
fn closing_brace(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

impl<'a> Sample<'a> {
    /// The value of the label `name`, as written: escapes are not resolved,
    /// since neither an id nor a bound holds any.
    pub fn label(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        loop {
            let (key, after) = rest.split_once('=')?;
            let value = after.trim_start().strip_prefix('"')?;
            let mut escaped = false;
            let end = value.bytes().position(|byte| {
                if escaped {
                    escaped = false;
                    return false;
                }
                escaped = byte == b'\\';
                byte == b'"'
            })?;
            if key.trim() == name {
                return Some(&value[..end]);
            }
            rest = value[end + 1..].trim_start().strip_prefix(',')?;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_by_table() {
        for (text, expected) in [
            ("", Ok(None)),
            ("# HELP a b", Ok(None)),
            ("up 1", Ok(Some(("up", None, 1.0)))),
            ("a{t=\"x\"} 2.5", Ok(Some(("a", Some("x"), 2.5)))),
            ("a{ t = \"x\" , } 2 1700000000000", Ok(Some(("a", Some("x"), 2.0)))),
            ("a{o=\"}\",t=\"x\"} 1e3", Ok(Some(("a", Some("x"), 1000.0)))),
            ("a{o=\"\\\"},\",t=\"x\"} 1", Ok(Some(("a", Some("x"), 1.0)))),
            ("a{t=\"x\"} 3 # {trace=\"y\"} 1.0", Ok(Some(("a", Some("x"), 3.0)))),
            ("a{tt=\"y\"} 1", Ok(Some(("a", None, 1.0)))),
            ("a{t=\"x} 1", Err("labels without end")),
            ("a", Err("no value")),
            ("a{} ", Err("no value")),
            ("a one", Err("the value is not a number")),
            ("<html> 1", Err("not a metric name")),
        ] {
            let got = line(text).map(|some| some.map(|s| (s.name, s.label("t"), s.value)));
            assert_eq!(got, expected, "{text:?}");
        }
        assert!(line("a NaN").expect("reads").expect("a sample").value.is_nan());
        assert_eq!(line("a +Inf").expect("reads").expect("a sample").value, f64::INFINITY);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            if let Ok(Some(sample)) = line(&text) {
                let _any = sample.label("customer_id");
            }
        }

        #[test]
        fn no_labels_make_it_panic(text in "[a-z{}\"\\\\,= 0-9é]{0,60}") {
            if let Ok(Some(sample)) = line(&text) {
                let _any = sample.label("a");
            }
        }
    }
}
