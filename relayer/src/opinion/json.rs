//! A plain JSON reader that keeps numbers as they were written and every key that was given.

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 128;

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as its text.
    Number(String),
    /// A string, unescaped.
    Text(String),
    /// A string with half of a surrogate pair in it, which is no text.
    Broken,
    /// An array.
    List(Vec<Self>),
    /// An object: its members in order, repeated keys included.
    Object(Vec<(String, Self)>),
}

/// Reads one value and nothing after it.
pub(super) fn read(text: &str) -> Result<Json, String> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.space();
    if reader.at == text.len() { Ok(value) } else { Err(reader.problem("something follows")) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Json, String> {
        if depth >= MAX_DEPTH {
            return Err(self.problem("it is nested too deeply"));
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => Ok(self.string()?.map_or(Json::Broken, Json::Text)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, String> {
        let mut members = Vec::new();
        self.take(b'{')?;
        self.space();
        while self.peek() != Some(b'}') {
            if !members.is_empty() {
                self.take(b',')?;
                self.space();
            }
            let name = self.string()?.ok_or_else(|| self.problem("a key is no text"))?;
            self.space();
            self.take(b':')?;
            members.push((name, self.value(depth + 1)?));
            self.space();
        }
        self.take(b'}')?;
        Ok(Json::Object(members))
    }

    fn list(&mut self, depth: usize) -> Result<Json, String> {
        let mut values = Vec::new();
        self.take(b'[')?;
        self.space();
        while self.peek() != Some(b']') {
            if !values.is_empty() {
                self.take(b',')?;
            }
            values.push(self.value(depth + 1)?);
            self.space();
        }
        self.take(b']')?;
        Ok(Json::List(values))
    }

    fn word(&mut self) -> Result<Json, String> {
        for (word, value) in
            [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))]
        {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.problem("no value stands here"))
    }

    fn number(&mut self) -> Result<Json, String> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let whole = self.digits()?;
        if whole > 1 && self.text.as_bytes()[self.at - whole] == b'0' {
            return Err(self.problem("a number starts with 0"));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Json::Number(self.text[start..self.at].to_owned()))
    }

    fn digits(&mut self) -> Result<usize, String> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start { Ok(self.at - start) } else { Err(self.problem("a digit is missing")) }
    }

    /// A string; `None` if an escape in it is half of a surrogate pair.
    fn string(&mut self) -> Result<Option<String>, String> {
        self.take(b'"')?;
        let mut string = Some(String::new());
        loop {
            let Some(character) = self.text[self.at..].chars().next() else {
                return Err(self.problem("a string does not end"));
            };
            self.at += character.len_utf8();
            let next = match character {
                '"' => return Ok(string),
                '\\' => self.escape()?,
                '\0'..='\u{1f}' => return Err(self.problem("a control character is not escaped")),
                _ => Some(character),
            };
            string = string.zip(next).map(|(mut string, next)| {
                string.push(next);
                string
            });
        }
    }

    fn escape(&mut self) -> Result<Option<char>, String> {
        let kind = self.peek().ok_or_else(|| self.problem("an escape does not end"))?;
        self.at += 1;
        Ok(match kind {
            b'"' | b'\\' | b'/' => Some(char::from(kind)),
            b'b' => Some('\u{8}'),
            b'f' => Some('\u{c}'),
            b'n' => Some('\n'),
            b'r' => Some('\r'),
            b't' => Some('\t'),
            b'u' => {
                let first = self.hex4()?;
                let is_pair =
                    (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u");
                if !is_pair {
                    return Ok(char::from_u32(first));
                }
                self.at += 2;
                let second = self.hex4()?;
                let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400);
                low.and_then(|low| char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + low))
            }
            _ => return Err(self.problem("that is no escape")),
        })
    }

    fn hex4(&mut self) -> Result<u32, String> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        let text = std::str::from_utf8(digits).unwrap_or_default();
        let is_hex = text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let code = if is_hex { u32::from_str_radix(text, 16).ok() } else { None };
        self.at += 4 * usize::from(is_hex);
        code.ok_or_else(|| self.problem("four hex digits are missing"))
    }

    fn take(&mut self, byte: u8) -> Result<(), String> {
        if self.peek() != Some(byte) {
            return Err(self.problem(&format!("{:?} is missing", char::from(byte))));
        }
        self.at += 1;
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn problem(&self, what: &str) -> String {
        format!("{what} at byte {}", self.at)
    }
}

impl Json {
    /// Text of a string.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Text of a number.
    pub fn number(&self) -> Option<&str> {
        match self {
            Self::Number(text) => Some(text),
            _ => None,
        }
    }

    /// Values of an array.
    pub fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(values) => Some(values),
            _ => None,
        }
    }

    /// The first value of a key that is not `null`.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        let (_, value) = members.iter().find(|(key, _)| key == name)?;
        (*value != Self::Null).then_some(value)
    }

    /// How often a key is given.
    pub fn count(&self, name: &str) -> usize {
        let Self::Object(members) = self else { return 0 };
        members.iter().filter(|(key, _)| key == name).count()
    }

    /// The first key that is not one of `names`, or comes twice; an error for what is no object.
    pub fn stray_key(&self, names: &[&str]) -> Result<Option<&str>, String> {
        let Self::Object(members) = self else { return Err("it is no object".into()) };
        let is_stray = |place: usize, name: &str| {
            !names.contains(&name) || members[..place].iter().any(|(key, _)| key == name)
        };
        Ok(members
            .iter()
            .enumerate()
            .find(|(place, (name, _))| is_stray(*place, name))
            .map(|(_, (name, _))| name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_json_refuses() {
        for text in [
            "",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e",
            "NaN",
            "[1,]",
            "[,]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":1,}"#,
            "[1",
            "\"a",
            "\"\n\"",
            r#""\x""#,
            r#"{"\ud800":1}"#,
            r#""\u12""#,
            "1 2",
            "nul",
            "{1:2}",
        ] {
            assert!(read(text).is_err(), "{text:?}");
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text:?}");
        }
        assert!(read(&"[".repeat(100_000)).is_err());
        for half in [r#""\ud800""#, r#""\ud800\u0041""#, r#""\udc00""#] {
            assert_eq!(read(half), Ok(Json::Broken));
        }
    }

    #[test]
    fn keeps_numbers_as_written_and_repeated_keys() {
        let value = read(r#" {"a":[1.50e3,-0,"\ud83d\ude00\n"],"a":null} "#).unwrap();
        let Json::Object(members) = &value else { panic!("{value:?}") };
        assert_eq!(members.len(), 2);
        let list = value.get("a").unwrap().list().unwrap();
        assert_eq!(list[0].number(), Some("1.50e3"));
        assert_eq!(list[2].text(), Some("\u{1f600}\n"));
        assert_eq!(value.stray_key(&["a"]), Ok(Some("a")));
    }
}
