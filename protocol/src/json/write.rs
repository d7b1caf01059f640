//! Appends values to JSON text.

use std::fmt::Write;

/// Appends a number as JavaScript prints it; NaN and the infinities become `null`.
pub(crate) fn push_f64(out: &mut String, number: f64) {
    let magnitude = number.abs();
    // Writing to a String cannot fail.
    let _ = if !number.is_finite() {
        out.write_str("null")
    } else if number == 0.0 {
        out.write_str("0")
    } else if (1e-6..1e21).contains(&magnitude) {
        write!(out, "{number}")
    } else if magnitude < 1.0 {
        write!(out, "{number:e}")
    } else {
        let text = format!("{number:e}");
        out.write_str(&text.replace('e', "e+"))
    };
}

/// Appends a string in quotes, with the escapes that JSON asks for, as `JSON.stringify` writes them.
pub fn push_quoted(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    let needs_escape = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    if !text.bytes().fold(false, |found, byte| found | needs_escape(byte)) {
        out.push_str(text);
        out.push('"');
        return;
    }
    let mut copied = 0;
    for (at, byte) in text.bytes().enumerate() {
        if !needs_escape(byte) {
            continue;
        }
        out.push_str(&text[copied..at]);
        copied = at + 1;
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{byte:04x}");
                continue;
            }
        };
        out.push_str(short);
    }
    out.push_str(&text[copied..]);
    out.push('"');
}

/// Appends a decimal number without the formatting machinery: every packet of a client with an id needs it.
pub(crate) fn push_u64(out: &mut String, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    // Digits are always text.
    out.push_str(str::from_utf8(&digits[at..]).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_json_stringify_does() {
        let mut out = String::new();
        push_quoted(&mut out, "\u{0}\u{8}\t\n\u{b}\u{c}\r\u{1f}\"\\/\u{7f}\u{2028}é");
        assert_eq!(out, "\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\\\"\\\\/\u{7f}\u{2028}é\"");
    }
}
